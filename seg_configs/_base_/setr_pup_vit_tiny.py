# A small SETR-PUP for two CPU cores: 192-d ViT of 6 blocks, 64 channels, ×8 progressive up-sampling,
# one auxiliary head on the second of four blocks.
_base_ = "mmseg::_base_/models/setr_pup.py"
norm_cfg = dict(type="SyncBN", requires_grad=True)
model = dict(
    type="mst_transfer.SlideEncoderDecoder",
    pretrained=None,
    backbone=dict(
        _delete_=True,
        type="mst_transfer.TimmViT",
        # The backbone that pretrain/configs/mst_vit_photos.py trains: change it there too.
        arch="vit_tiny_patch16_224",
        img_size=96,
        patch_size=16,
        embed_dim=192,
        depth=6,
        num_heads=3,
        checkpoint="work_dirs/mst_vit_photos/teacher.safetensors",
    ),
    decode_head=dict(in_channels=192, channels=64, num_convs=3, norm_cfg=norm_cfg),
    auxiliary_head=dict(
        _delete_=True,
        type="SETRUPHead",
        in_channels=192,
        channels=64,
        in_index=1,
        num_classes=19,
        dropout_ratio=0,
        norm_cfg=norm_cfg,
        num_convs=1,
        up_scale=2,
        kernel_size=3,
        align_corners=False,
        loss_decode=dict(type="CrossEntropyLoss", use_sigmoid=False, loss_weight=0.4),
    ),
)
