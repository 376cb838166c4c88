"""MST on a ViT with DINO's recipe; leaves choose the architecture, the images and the length of the run."""

model = dict(
    type="pretrain.MST",
    backbone=dict(arch="vit_small_patch16_224", img_size=224, drop_path_rate=0.1),
    head=dict(out_dim=65536, hidden_dim=2048, bottleneck_dim=256, norm_last_layer=True),
    masking=dict(
        mode="attention",
        num=8,
        p=1.0,
        views=(0, 1),
        ratio=0.3,  # from here on: of the AttMask modes
        ratio_var=0.0,
        image_prob=0.5,
        show_max=0.1,
    ),
    decoder=dict(channels=(256, 128, 64, 32)),
    loss=dict(student_temp=0.1, center_momentum=0.9),
    cross_entropy_weight=1.0,
    restoring_weight=1.0,
    init_from=None,
    init_head=False,
)

train_dataloader = dict(
    batch_size=64,
    num_workers=8,
    persistent_workers=True,
    pin_memory=True,
    prefetch_factor=4,
    sampler=dict(type="pretrain.EpochSampler"),
    dataset=dict(
        type="pretrain.MultiCropDataset",
        data_root="{{$MST_DATA_ROOT:data}}/imagenet/train",
        num_local_crops=8,
        global_size=224,
        local_size=96,
        global_scale=(0.4, 1.0),
        local_scale=(0.05, 0.4),
    ),
)

optim_wrapper = dict(
    type="pretrain.PretrainOptimWrapper",
    constructor="pretrain.PretrainOptimWrapperConstructor",
    optimizer=dict(type="AdamW", betas=(0.9, 0.999), fused=True),
    dtype="auto",
    clip_grad=3.0,
    tf32=True,
)

train_cfg = dict(
    type="pretrain.PretrainLoop",
    max_epochs=100,
    accumulation_steps=1,
    max_nonfinite_steps=10,
    schedule=dict(
        base_lr=5e-4,
        base_batch=256,
        min_lr=1e-6,
        warmup_epochs=10,
        weight_decay=0.04,
        weight_decay_end=0.4,
        teacher_momentum=0.996,
        warmup_teacher_temp=0.04,
        teacher_temp=0.07,
        warmup_teacher_temp_epochs=30,
        freeze_last_layer_epochs=1,
        momentum_batch=None,
        head_only_epochs=0,
    ),
)
