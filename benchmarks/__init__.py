"""Measurements against the packages that users would use otherwise; each prints a ratio."""
