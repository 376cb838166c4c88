"""Writes backbones in the layouts of other libraries; a file is kept only if its target loads it and computes the same.

One target a module: its names, how a file is written, how its own library loads it again. What they share:
:mod:`~mst_transfer.export.original` (the model that is converted), :mod:`~mst_transfer.export.verify` (comparing
features), :mod:`~mst_transfer.export.staging` (temporary names), :mod:`~mst_transfer.export.convert` (the order of
these).
"""
