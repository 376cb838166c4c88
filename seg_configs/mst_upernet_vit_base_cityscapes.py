# UPerNet, ViT-B/16, Cityscapes, 768x768, 80k steps at batch 8, AdamW 1e-4. No figure known; not measured here.
#   tools/dist_train.sh seg_configs/mst_upernet_vit_base_cityscapes.py 8 --amp
_base_ = "./mst_upernet_vit_small_cityscapes.py"
model = dict(
    backbone=dict(
        arch="vit_base_patch16_224",
        checkpoint="work_dirs/mst_vit_base_16_imagenet_100e/teacher.safetensors",
    ),
    decode_head=dict(in_channels=[768, 768, 768, 768], channels=768),
    auxiliary_head=dict(in_channels=768),
)
