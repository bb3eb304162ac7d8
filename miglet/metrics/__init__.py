"""What is measured on the machine, and the page that shows it to Prometheus.

`Sampler` is all that the heartbeat needs. The page (`exposition`, `pages`) needs
prometheus_client, so nothing imports it but a sampler that is told to listen.
"""

from miglet.metrics.machine import METRICS, Machine
from miglet.metrics.sampler import Sampler

__all__ = ["METRICS", "Machine", "Sampler"]
