# SETR-MLA on a ViT-S/16 at 768x768: four blocks, aggregated from the last to the first, then up-sampled and joined.
_base_ = "mmseg::_base_/models/setr_mla.py"
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
    neck=dict(in_channels=[384, 384, 384, 384]),
    test_cfg=dict(mode="slide", crop_size=(768, 768), stride=(512, 512)),
)
