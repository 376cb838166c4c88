# 40,000 steps at batch 16 (8 GPUs x 2) for a layer on a frozen backbone: AdamW 1e-3, warm-up, then linearly to zero.
_base_ = "mmseg::_base_/schedules/schedule_40k.py"
optim_wrapper = dict(
    _delete_=True,
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=1e-3, betas=(0.9, 0.999), weight_decay=1e-4),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-6, by_epoch=False, begin=0, end=1500),
    dict(type="PolyLR", eta_min=0.0, power=1.0, by_epoch=False, begin=1500, end=40000),
]
auto_scale_lr = dict(enable=False, base_batch_size=16)
