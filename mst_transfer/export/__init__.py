"""Writes backbones in the layouts of other libraries; a file is kept only if its target loads it and computes the same.

``source_model`` reads the model that is converted, a module a library knows its layout (names,
how a file is written, how that library loads it again), ``verify`` compares features, and
``convert`` puts these in order: write under a temporary name, load again, compare, keep.
"""

TARGETS = {  # by name on the command line: module and its Target
    "timm": ("timm_layout", "TIMM"),
    "mmpretrain": ("mmpretrain_layout", "TARGET"),
    "detectron2": ("detectron2_layout", "TARGET"),
    "hf": ("timm_layout", "HUGGING_FACE"),
    "onnx": ("onnx_graph", "TARGET"),
    "mst": ("timm_layout", "MST"),
}
