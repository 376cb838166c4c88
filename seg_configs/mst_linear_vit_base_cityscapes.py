# A linear layer on a frozen ViT-B/16, Cityscapes, 768x768, 40k steps at batch 16, AdamW 1e-3. No figure known;
# not measured here.  tools/dist_train.sh seg_configs/mst_linear_vit_base_cityscapes.py 8
_base_ = "./mst_linear_vit_small_cityscapes.py"
model = dict(
    backbone=dict(
        arch="vit_base_patch16_224",
        checkpoint="work_dirs/mst_vit_base_16_imagenet_100e/teacher.safetensors",
    ),
    decode_head=dict(in_channels=768, channels=768),
)
