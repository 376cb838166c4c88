"""ViT-S/16 on one GPU: effective batch 256 by accumulation, and what keeps so small a batch from collapsing. [ours]

The learning rate follows the batch; the teacher's momentum, quoted for 1024 images, is scaled so that the teacher
averages over as many images; fewer prototypes, since a batch has to fill them; a teacher temperature that stays low
(a warmer teacher starts out uniform); the last layer is normalised and rests for the first epoch.
"""

_base_ = ["mst_vit_small_16_imagenet_100e.py"]

model = dict(head=dict(out_dim=16384, norm_last_layer=True))
train_cfg = dict(
    accumulation_steps=4,
    schedule=dict(
        momentum_batch=1024,
        warmup_teacher_temp=0.04,
        teacher_temp=0.04,
        warmup_teacher_temp_epochs=0,
        freeze_last_layer_epochs=1,
    ),
)
