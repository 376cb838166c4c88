"""Knows what differs between processors: matrix products, batch norm and groups of CPU processes."""
