# SETR-PUP, ViT-B/16, Cityscapes, 768x768, 40k steps at batch 8, SGD 0.01.
# No figure known; not measured here.
#   tools/dist_train.sh seg_configs/mst_setr_pup_vit_base_cityscapes.py 8
_base_ = "./mst_setr_pup_cityscapes.py"
model = dict(
    backbone=dict(
        arch="vit_base_patch16_224",
        checkpoint="work_dirs/mst_vit_base_16_imagenet_100e/teacher.safetensors",
    ),
    decode_head=dict(in_channels=768),
    auxiliary_head=[dict(head, in_channels=768) for head in _base_.model.auxiliary_head],
)
