# 12 epochs at batch 16 with AdamW as mmdet's Swin configs: no decay of norms, biases and position tables, and the
# same rate in every layer; a rate below 1 is one option away: optim_wrapper.paramwise_cfg.layer_decay_rate.
_base_ = "mmdet::_base_/schedules/schedule_1x.py"
optim_wrapper = dict(
    _delete_=True,
    type="OptimWrapper",
    constructor="mst_transfer.LayerDecayOptimWrapperConstructor",
    paramwise_cfg=dict(layer_decay_rate=1.0),
    optimizer=dict(type="AdamW", lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=1000),
    dict(type="MultiStepLR", begin=0, end=12, by_epoch=True, milestones=[8, 11], gamma=0.1),
]
