"""Commands of the controller and of operators: registry, intake, validation."""
