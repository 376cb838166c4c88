# What the tokens of the study's backbones are worth as they are: a linear layer a patch on CamVid, backbone frozen.
#   MST_DATA_ROOT=FOLDER tools/dist_train.sh seg_configs/mst_linear_camvid.py 1
#   … --cfg-options model.backbone.frozen_stages=-1          the same, fine-tuned
_base_ = "mst_setr_pup_camvid.py"
model = dict(
    backbone=dict(
        # The backbone that the runs in pretrain/configs/study train: change it there too.
        embed_dim=128,
        depth=6,
        num_heads=4,
        out_indices=(-1,),
        frozen_stages="all",
        checkpoint="work_dirs/study/mst_seed0/teacher.safetensors",
    ),
    decode_head=dict(
        _delete_=True,
        type="FCNHead",
        in_channels=128,
        channels=128,
        in_index=0,
        num_convs=0,
        concat_input=False,
        dropout_ratio=0.0,
        num_classes=11,
        align_corners=False,
        loss_decode=dict(type="CrossEntropyLoss", use_sigmoid=False, loss_weight=1.0),
    ),
    auxiliary_head=None,
)
train_cfg = dict(max_iters=300, val_interval=300)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=30),
    dict(type="CosineAnnealingLR", T_max=300, eta_min=0.0, by_epoch=False),
]
default_hooks = dict(checkpoint=dict(interval=300))
