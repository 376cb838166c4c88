"""A random mask of as many patches as MST hides: the paper's ablation."""

_base_ = ["../mst_vit_small_16_imagenet_100e.py"]

model = dict(masking=dict(_delete_=True, mode="random", p=0.125))
