"""Adapters from backbones to the model libraries; :mod:`mst_transfer.registry` finds them by their names."""
