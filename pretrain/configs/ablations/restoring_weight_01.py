"""λ2 = 0.1."""

_base_ = ["../mst_vit_small_16_imagenet_100e.py"]

model = dict(restoring_weight=0.1)
