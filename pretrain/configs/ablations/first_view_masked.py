"""Only the first global view is masked."""

_base_ = ["../mst_vit_small_16_imagenet_100e.py"]

model = dict(masking=dict(views=(0,)))
