"""The acceptance run for one GPU: ``python -m benchmarks gpu``."""
