"""λ2 = 10."""

_base_ = ["../mst_vit_small_16_imagenet_100e.py"]

model = dict(restoring_weight=10.0)
