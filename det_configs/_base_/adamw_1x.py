# 12 epochs at batch 16 (8 GPUs x 2) with AdamW and layer-wise learning rate decay.
_base_ = "mmdet::_base_/schedules/schedule_1x.py"
optim_wrapper = dict(
    _delete_=True,
    type="OptimWrapper",
    constructor="mst_transfer.LayerDecayOptimWrapperConstructor",
    paramwise_cfg=dict(layer_decay_rate=0.75),
    optimizer=dict(type="AdamW", lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),
)
