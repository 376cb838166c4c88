# UPerNet, ViT-B/16, ADE20K, 512x512, 160k steps at batch 16, AdamW 1e-4. mmseg's model zoo has 48.13 mIoU (48.7
# multi-scale) for MAE's weights, 1,600 epochs (not measured here).
#   tools/dist_train.sh seg_configs/mst_upernet_vit_base_ade20k.py 8 --amp
_base_ = "./mst_upernet_vit_small_ade20k.py"
model = dict(
    backbone=dict(
        arch="vit_base_patch16_224",
        checkpoint="work_dirs/mst_vit_base_16_imagenet_100e/teacher.safetensors",
    ),
    decode_head=dict(in_channels=[768, 768, 768, 768], channels=768),
    auxiliary_head=dict(in_channels=768),
)
