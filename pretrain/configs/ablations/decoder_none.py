"""MST's mask without the restoring decoder."""

_base_ = ["../mst_vit_small_16_imagenet_100e.py"]

model = dict(decoder=None)
