# SETR-MLA, ViT-B/16, ADE20K, 512x512, 160k steps at batch 16, SGD 0.001.
# No figure known; not measured here.
#   tools/dist_train.sh seg_configs/mst_setr_mla_vit_base_ade20k.py 8
_base_ = "./mst_setr_mla_vit_small_ade20k.py"
model = dict(
    backbone=dict(
        arch="vit_base_patch16_224",
        checkpoint="work_dirs/mst_vit_base_16_imagenet_100e/teacher.safetensors",
    ),
    neck=dict(in_channels=[768, 768, 768, 768]),
)
