"""AttMask-High: the most attended patches are hidden, of every second image."""

_base_ = ["../mst_vit_small_16_imagenet_100e.py"]

model = dict(masking=dict(_delete_=True, mode="attention_high", ratio=0.3, image_prob=0.5))
