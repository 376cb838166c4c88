# A few hundred steps on one or two CPU cores: AdamW with layer decay, short warm-up, then cosine to nothing.
_base_ = "mmdet::_base_/schedules/schedule_1x.py"
train_cfg = dict(max_epochs=12, val_interval=12)
optim_wrapper = dict(
    _delete_=True,
    type="OptimWrapper",
    constructor="mst_transfer.LayerDecayOptimWrapperConstructor",
    paramwise_cfg=dict(layer_decay_rate=0.8),
    optimizer=dict(type="AdamW", lr=1e-3, weight_decay=0.05),
    clip_grad=dict(max_norm=5.0),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=30),
    dict(type="CosineAnnealingLR", T_max=12, eta_min=0.0, convert_to_iter_based=True),
]
auto_scale_lr = dict(base_batch_size=4)
