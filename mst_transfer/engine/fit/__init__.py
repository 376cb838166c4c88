"""Fits a config to its data, its backbone and the devices of a run."""
