"""Holds what every run needs, pre-training or head: launch, stop, work dir, checkpoints, guards."""
