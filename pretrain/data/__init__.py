"""Reads, augments and orders the images of a pre-training."""
