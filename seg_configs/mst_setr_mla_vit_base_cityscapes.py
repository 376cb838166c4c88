# SETR-MLA, ViT-B/16, Cityscapes, 768x768, 80k steps at batch 8, SGD 0.002.
# No figure known; not measured here.
#   tools/dist_train.sh seg_configs/mst_setr_mla_vit_base_cityscapes.py 8
_base_ = "./mst_setr_mla_vit_small_cityscapes.py"
model = dict(
    backbone=dict(
        arch="vit_base_patch16_224",
        checkpoint="work_dirs/mst_vit_base_16_imagenet_100e/teacher.safetensors",
    ),
    neck=dict(in_channels=[768, 768, 768, 768]),
)
