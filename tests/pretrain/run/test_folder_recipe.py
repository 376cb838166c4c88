"""Plans are near the recipes that were tried, can be trained with, and follow the time that there is."""

from itertools import product

import pytest
from mmengine.config import Config

from mst_transfer.configs.shipped import shipped_config
from pretrain.run.folder_recipe import MIN_STEPS, Facts, Net, plan, power_of_two
from pretrain.schedules import Schedule

SMALL = Net("vit_small_patch16_224", {}, 21.7, 16)
TINY = Net("vit_tiny_patch16_224", {}, 5.5, 16)
FINE = Net("vit_tiny_patch16_224", {"patch_size": 8}, 5.5, 8)
IMAGENET = Facts(1_281_167, 375, cores=128, gpus=8, processes=8, memory=56)


def config(*args, **kwargs) -> Config:
    cfg = Config()
    cfg.merge_from_dict({name: value for name, value, _ in plan(*args, **kwargs)})
    return cfg


def test_powers_of_two() -> None:
    assert [power_of_two(value) for value in (0.2, 1, 3.9, 4, 1000)] == [1, 1, 2, 4, 512]


@pytest.mark.parametrize(
    ("facts", "net", "batch", "prototypes", "sizes", "temps"),
    [
        (IMAGENET, SMALL, 1024, 65536, (224, 96), (0.04, 0.07)),  # DINO's, and _base_/mst_vit.py
        (Facts(8_000, 96), TINY, 64, 512, (96, 48), (0.02, 0.02)),  # as the study, but for 1,024 prototypes
        (Facts(3_000, 64), FINE, 32, 256, (64, 24), (0.02, 0.02)),  # as mst_vit_sample.py, but for views of 32
        (Facts(100_000, 500, 16, 1, 1, 56), SMALL, 256, 8192, (224, 96), (0.04, 0.04)),
    ],
)
def test_near_the_recipes_that_were_tried(facts, net, batch, prototypes, sizes, temps) -> None:
    cfg = config(facts, net)
    loader, head, schedule = cfg.train_dataloader, cfg.model.head, cfg.train_cfg.schedule
    assert loader.batch_size * facts.processes * cfg.train_cfg.accumulation_steps == batch
    assert head.out_dim == prototypes and (loader.dataset.global_size, loader.dataset.local_size) == sizes
    assert (schedule.warmup_teacher_temp, schedule.teacher_temp) == temps


def test_imagenet_on_gpus_is_the_shipped_recipe() -> None:
    cfg = config(IMAGENET, SMALL)
    shipped = Config.fromfile(str(shipped_config("pretrain/configs/mst_vit_small_16_imagenet_100e.py")))
    assert {**shipped.train_cfg.schedule, **cfg.train_cfg.schedule} == dict(shipped.train_cfg.schedule)
    assert cfg.train_cfg.max_epochs == 100 and cfg.model.masking.num == 8
    assert {**shipped.model.backbone, **cfg.model.backbone} == dict(shipped.model.backbone)
    views = {**shipped.train_dataloader.dataset, **cfg.train_dataloader.dataset}
    assert views == {**shipped.train_dataloader.dataset, "reduced_decoding": False, "max_images": None}


def test_every_plan_can_be_trained_with() -> None:
    """Whole cells, at least one step an epoch, a warm-up within the run, a batch that fits."""
    swin, large = Net("swin", {}, 27.5, 32), Net("large", {}, 304, 14, {"init_from": "f"})
    counts, sides = (16, 100, 3_000, 50_000, 2_000_000), (20, 100, 224, 3000)
    for num_images, gpus, net, side, epochs in product(
        counts, (0, 1, 3), (SMALL, FINE, swin, large), sides, (None, 1, 7)
    ):
        facts = Facts(num_images, side, 8, gpus, max(gpus, 1), 10)
        cfg = config(facts, net, epochs)
        data, batch = cfg.train_dataloader.dataset, cfg.train_dataloader.batch_size
        assert data.global_size % net.cell == data.local_size % net.cell == 0 < data.local_size < data.global_size
        assert data.global_size <= max(224 if gpus else 128, 2 * net.cell)
        assert cfg.model.masking.num <= (data.global_size // net.cell) ** 2
        assert num_images >= batch * facts.processes * cfg.train_cfg.accumulation_steps
        assert cfg.train_cfg.max_epochs == epochs or epochs is None
        Schedule(**cfg.train_cfg.schedule).check_length(cfg.train_cfg.max_epochs)
        assert min(cfg.default_hooks.logger.interval, cfg.default_hooks.checkpoint.interval) >= 1


def test_small_memory_means_accumulation() -> None:
    facts = Facts(1_000_000, 500, 8, 1, 1, memory=4)
    much, little = config(facts._replace(memory=500), SMALL), config(facts, SMALL)
    assert much.train_cfg.accumulation_steps == 1 and little.train_cfg.accumulation_steps > 16
    products = [one.train_dataloader.batch_size * one.train_cfg.accumulation_steps for one in (much, little)]
    assert products[0] == products[1]


def test_time_makes_epochs_and_then_fewer_photos() -> None:
    facts = Facts(8_000, 96)  # 125 steps an epoch
    assert config(facts, TINY, possible_steps=1_300).train_cfg.max_epochs == 10
    short = config(facts, TINY, possible_steps=300)
    assert short.train_cfg.max_epochs == 3 and short.train_dataloader.dataset.max_images == 6_400
    with pytest.raises(ValueError, match=rf"59 steps, {MIN_STEPS} are the least"):
        config(facts, TINY, possible_steps=59)


def test_too_few_photos_are_refused() -> None:
    with pytest.raises(ValueError, match="15 photos are too few: give at least 16"):
        plan(Facts(15, 96), TINY)
    with pytest.raises(ValueError, match="at least 64"):
        plan(Facts(63, 96, processes=32), TINY)


def test_weights_to_go_on_from_change_the_schedule() -> None:
    cfg = config(Facts(50_000, 500, 8, 1), SMALL._replace(init={"init_from": "file.pth"}))
    assert cfg.model.init_from == "file.pth" and cfg.train_cfg.max_epochs == 10
    schedule = cfg.train_cfg.schedule
    assert schedule.head_only_epochs == 1 and schedule.freeze_last_layer_epochs == 0 and schedule.base_lr < 2e-4
