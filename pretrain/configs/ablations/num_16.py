"""The lowest sixteenth of the patches are candidates."""

_base_ = ["../mst_vit_small_16_imagenet_100e.py"]

model = dict(masking=dict(num=16))
