# SETR-naive, ViT-B/16, ADE20K, 512x512, 160k steps at batch 16, SGD 0.01.
# No figure known; not measured here.
#   tools/dist_train.sh seg_configs/mst_setr_naive_vit_base_ade20k.py 8
_base_ = "./mst_setr_naive_vit_small_ade20k.py"
model = dict(
    backbone=dict(
        arch="vit_base_patch16_224",
        checkpoint="work_dirs/mst_vit_base_16_imagenet_100e/teacher.safetensors",
    ),
    decode_head=dict(in_channels=768),
    auxiliary_head=[dict(head, in_channels=768) for head in _base_.model.auxiliary_head],
)
