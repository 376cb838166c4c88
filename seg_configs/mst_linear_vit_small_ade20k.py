# A linear layer on a frozen ViT-S/16, ADE20K, 512x512, 40k steps at batch 16, AdamW 1e-3. No figure known;
# not measured here.  tools/dist_train.sh seg_configs/mst_linear_vit_small_ade20k.py 8
_base_ = [
    "_base_/linear_vit_small.py",
    "_base_/ade20k_512x512.py",
    "_base_/adamw_linear_40k.py",
    "mmseg::_base_/default_runtime.py",
]
model = dict(
    data_preprocessor=dict(size=(512, 512)),
    backbone=dict(img_size=(512, 512)),
    decode_head=dict(num_classes=150),
    test_cfg=dict(crop_size=(512, 512), stride=(341, 341)),
)
default_hooks = dict(checkpoint=dict(max_keep_ckpts=2))
