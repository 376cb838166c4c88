"""Shared by every pre-training run."""

default_scope = "mmengine"

default_hooks = dict(
    timer=dict(type="mmengine.IterTimerHook"),
    logger=dict(type="mmengine.LoggerHook", interval=50),
    checkpoint=dict(type="pretrain.BackboneCheckpointHook", by_epoch=True, interval=1, max_keep_ckpts=2),
)
custom_hooks = [
    dict(type="pretrain.StrictLoadHook"),
    dict(type="pretrain.ThroughputHook"),
    dict(type="pretrain.UnreadableImagesHook"),
    dict(type="pretrain.CollapseAlarmHook"),
]

env_cfg = dict(cudnn_benchmark=True, mp_cfg=dict(mp_start_method="fork", opencv_num_threads=0))
vis_backends = [dict(type="mmengine.LocalVisBackend"), dict(type="mmengine.TensorboardVisBackend")]
visualizer = dict(type="mmengine.Visualizer", vis_backends=vis_backends)
log_processor = dict(type="mmengine.LogProcessor", window_size=20, by_epoch=True)
log_level = "INFO"
load_from = None
resume = False
randomness = dict(seed=0)
