"""What tells of a job: output, logs, hooks, perf log, and the verdict."""
