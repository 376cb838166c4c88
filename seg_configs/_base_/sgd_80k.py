# 80,000 steps at batch 8 (8 GPUs x 1): mmseg's SGD 0.01 with polynomial decay, heads 10 times faster.
_base_ = "mmseg::_base_/schedules/schedule_80k.py"
optimizer = dict(type="SGD", lr=0.01, momentum=0.9, weight_decay=0.0)
optim_wrapper = dict(optimizer=optimizer, paramwise_cfg=dict(custom_keys={"head": dict(lr_mult=10.0)}))
auto_scale_lr = dict(enable=False, base_batch_size=8)
