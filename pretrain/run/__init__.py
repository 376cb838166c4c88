"""Runs a pre-training: loop, optimiser, hooks, warm start."""
