"""MST for ten epochs from released weights: DINO's ViT-S/16, or any backbone file of that shape.

`--cfg-options model.init_from=FILE` names another. Head and decoder learn alone in the first epoch; the k-NN guard
stops the run when the teacher forgets more than two points. [ours]
"""

_base_ = ["mst_vit_small_16_imagenet_100e.py"]

model = dict(init_from="dino_deitsmall16_pretrain.pth", backbone=dict(pos_embed_interpolation="dino"))
train_cfg = dict(
    max_epochs=10,
    schedule=dict(
        base_lr=1e-4,
        warmup_epochs=2,
        head_only_epochs=1,
        freeze_last_layer_epochs=0,  # it has that epoch to find its place
        teacher_momentum=0.999,
        warmup_teacher_temp_epochs=0,
        teacher_temp=0.04,
    ),
)
custom_hooks = [
    *_base_.custom_hooks,
    dict(
        type="pretrain.KNNHook",
        train_root="{{$MST_DATA_ROOT:data}}/imagenet/train",
        val_root="{{$MST_DATA_ROOT:data}}/imagenet/val",
        interval=1,
        max_drop=2.0,
        action="stop",
    ),
]
