"""AttMask-High with its published settings: the 10 to 50 % most attended patches are hidden, of every second image."""

_base_ = ["../mst_vit_small_16_imagenet_100e.py"]

model = dict(masking=dict(_delete_=True, mode="attention_high", ratio=0.3, ratio_var=0.2, image_prob=0.5))
