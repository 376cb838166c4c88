# SETR-naive on a ViT-S/16 at 768x768: one 1x1 convolution and two bilinear steps, on the last block and, as auxiliary
# heads, on three earlier ones.
_base_ = "mmseg::_base_/models/setr_naive.py"
model = dict(
    type="mst_transfer.SlideEncoderDecoder",
    data_preprocessor=dict(size=(768, 768)),
    pretrained=None,
    backbone=dict(
        _delete_=True,
        type="mst_transfer.TimmViT",
        arch="vit_small_patch16_224",
        img_size=(768, 768),
        checkpoint="work_dirs/mst_vit_small_16_imagenet_100e/teacher.safetensors",
    ),
    decode_head=dict(type="mst_transfer.SETRUPHead", in_channels=384),
    auxiliary_head=[
        dict(
            type="mst_transfer.SETRUPHead",
            in_channels=384,
            channels=256,
            in_index=index,
            num_classes=19,
            dropout_ratio=0,
            norm_cfg=dict(type="SyncBN", requires_grad=True),
            num_convs=1,
            up_scale=4,
            kernel_size=1,
            align_corners=False,
            loss_decode=dict(type="CrossEntropyLoss", use_sigmoid=False, loss_weight=0.4),
        )
        for index in range(3)
    ],
    test_cfg=dict(mode="slide", crop_size=(768, 768), stride=(512, 512)),
)
