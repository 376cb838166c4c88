# UPerNet on the four stages of a Swin-T.
_base_ = "mmseg::_base_/models/upernet_swin.py"
model = dict(
    type="mst_transfer.SlideEncoderDecoder",
    data_preprocessor=dict(size=(512, 512)),
    backbone=dict(
        _delete_=True,
        type="mst_transfer.TimmSwin",
        arch="swin_tiny_patch4_window7_224",
        drop_path_rate=0.3,
        checkpoint="work_dirs/mst_swin_tiny_imagenet_100e/teacher.safetensors",
    ),
)
