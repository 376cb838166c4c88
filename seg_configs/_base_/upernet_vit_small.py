# UPerNet on a ViT-S/16 whose four evenly spaced blocks give the maps at strides 4, 8, 16 and 32.
_base_ = "mmseg::_base_/models/upernet_swin.py"
model = dict(
    type="mst_transfer.SlideEncoderDecoder",
    data_preprocessor=dict(size=(768, 768)),
    backbone=dict(
        _delete_=True,
        type="mst_transfer.TimmViTPyramid",
        arch="vit_small_patch16_224",
        img_size=(768, 768),
        drop_path_rate=0.1,
        checkpoint="work_dirs/mst_vit_small_16_imagenet_100e/teacher.safetensors",
    ),
    decode_head=dict(in_channels=[384, 384, 384, 384]),
    test_cfg=dict(mode="slide", crop_size=(768, 768), stride=(512, 512)),
)
