"""The paper's long schedule: ViT-S/16, ImageNet-1k, 300 epochs (linear top-1 of the paper: 76.9)."""

_base_ = ["_base_/mst_vit.py", "_base_/runtime.py"]

train_cfg = dict(max_epochs=300)
