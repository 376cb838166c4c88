"""Plain DINO: no mask, no decoder."""

_base_ = ["../mst_vit_small_16_imagenet_100e.py"]

model = dict(masking=dict(_delete_=True, mode="none"), decoder=None)
