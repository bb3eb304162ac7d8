"""What is measured on the machine, and the pages that show it to Prometheus."""
