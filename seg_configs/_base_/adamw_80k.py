# 80,000 steps at batch 8 (8 GPUs x 1) with AdamW: rate 0.65 a layer, 1,500 steps of warm-up, then linearly to zero,
# as mmseg's UPerNet on MAE.
_base_ = "mmseg::_base_/schedules/schedule_80k.py"
optim_wrapper = dict(
    _delete_=True,
    type="OptimWrapper",
    constructor="mst_transfer.LayerDecayOptimWrapperConstructor",
    paramwise_cfg=dict(layer_decay_rate=0.65),
    optimizer=dict(type="AdamW", lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-6, by_epoch=False, begin=0, end=1500),
    dict(type="PolyLR", eta_min=0.0, power=1.0, by_epoch=False, begin=1500, end=80000),
]
auto_scale_lr = dict(enable=False, base_batch_size=8)
