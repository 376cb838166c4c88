# 184,375 steps at batch 64 (100 epochs), the numbers of detectron2's ViTDet: decay of the rate 0.7 a layer.
train_cfg = dict(type="IterBasedTrainLoop", max_iters=184375, val_interval=5000)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
optim_wrapper = dict(
    type="OptimWrapper",
    constructor="mst_transfer.LayerDecayOptimWrapperConstructor",
    paramwise_cfg=dict(layer_decay_rate=0.7),
    optimizer=dict(type="AdamW", lr=1e-4, betas=(0.9, 0.999), weight_decay=0.1),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=250),
    dict(type="MultiStepLR", begin=0, end=184375, by_epoch=False, milestones=[163889, 177546], gamma=0.1),
]
auto_scale_lr = dict(enable=False, base_batch_size=64)
