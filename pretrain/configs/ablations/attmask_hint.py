"""AttMask-Hint: the same, and some of the most attended patches are shown."""

_base_ = ["../mst_vit_small_16_imagenet_100e.py"]

model = dict(masking=dict(_delete_=True, mode="attention_hint", ratio=0.3, ratio_var=0.2, image_prob=0.5, show_max=0.1))
