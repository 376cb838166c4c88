"""Writes backbones in the layouts of other libraries; a file is kept only if its target loads it and computes the same.

:mod:`~mst_transfer.export.source_model` reads the model that is converted, a module a library knows its layout (names,
how a file is written, how that library loads it again), :mod:`~mst_transfer.export.verify` compares features, and
:mod:`~mst_transfer.export.convert` puts these in order: write under a temporary name, load again, compare, keep.
"""
