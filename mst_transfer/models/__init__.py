"""Adapters from backbones to the model libraries; ``mst_transfer.registry`` finds them by their names."""
