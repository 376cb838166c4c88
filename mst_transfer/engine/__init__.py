"""Trains and tests heads: entries, layer-wise decay, the record of a run."""
