"""Every candidate is hidden with probability 0.5."""

_base_ = ["../mst_vit_small_16_imagenet_100e.py"]

model = dict(masking=dict(p=0.5))
