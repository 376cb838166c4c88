# A linear layer on a frozen ViT-S/16, Cityscapes, 768x768, 40k steps at batch 16, AdamW 1e-3. No figure known;
# not measured here.  tools/dist_train.sh seg_configs/mst_linear_vit_small_cityscapes.py 8
_base_ = [
    "_base_/linear_vit_small.py",
    "_base_/cityscapes_768x768.py",
    "_base_/adamw_linear_40k.py",
    "mmseg::_base_/default_runtime.py",
]
train_dataloader = dict(batch_size=2)
default_hooks = dict(checkpoint=dict(max_keep_ckpts=2))
