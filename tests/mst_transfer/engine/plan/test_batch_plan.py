"""Accumulated batches: the plan, what it changes in a config, and that the step is that of one large batch."""

import json
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from mst_transfer.engine.plan import batch_plan


def config(**changes) -> Config:
    cfg = Config(
        dict(
            train_dataloader=dict(batch_size=2),
            optim_wrapper=dict(type="OptimWrapper", optimizer=dict(type="AdamW", lr=1e-4)),
            train_cfg=dict(type="EpochBasedTrainLoop", max_epochs=12, val_interval=1),
            param_scheduler=[
                dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=500),
                dict(type="MultiStepLR", by_epoch=True, begin=0, end=12, milestones=[8, 11]),
            ],
            auto_scale_lr=dict(enable=False, base_batch_size=16),
        )
    )
    cfg.merge_from_dict(changes)
    return cfg


def planned(cfg: Config, processes: int, accumulate: str | int | None = None) -> tuple[batch_plan.BatchPlan, list[str]]:
    if accumulate is not None:
        batch_plan.want_accumulation(cfg, accumulate)
    plan = batch_plan.plan_batch(cfg, processes)
    return plan, batch_plan.apply_batch_plan(cfg, plan)


@pytest.mark.parametrize(
    ("processes", "accumulate", "accumulation", "effective", "message"),
    [
        (8, None, 1, 16, "both are the recipe's"),
        (8, "auto", 1, 16, "both are the recipe's"),
        (1, "auto", 8, 16, "2 a process × 1 processes × 8 accumulated = 16; learning rate 0.0001; both are"),
        (4, "auto", 2, 16, "both are the recipe's"),
        (1, None, 1, 2, "the recipe's batch is 16: --accumulate 8 makes the batch equal, --auto-scale-lr scales the"),
        (3, None, 1, 6, "the recipe's batch is 16: --auto-scale-lr scales the rate"),
        (1, 3, 3, 6, "the recipe's batch is 16: --accumulate 8 makes"),
        (16, "auto", 1, 32, "the recipe's batch is 16: --auto-scale-lr scales the rate"),
    ],
)
def test_the_plan_says_what_a_step_sees(processes, accumulate, accumulation, effective, message):
    plan, sentences = planned(config(), processes, accumulate)
    assert (plan.accumulation, plan.effective, plan.lr) == (accumulation, effective, 1e-4)
    assert message in sentences[0]


def test_the_rate_is_scaled_by_the_batch_of_a_step():
    plan, sentences = planned(config(auto_scale_lr=dict(enable=True, base_batch_size=16)), 1)
    assert plan.lr == pytest.approx(1e-4 * 2 / 16) and "its rate 0.0001" in sentences[0]
    cfg = config(auto_scale_lr=dict(enable=True, base_batch_size=16))
    plan, _ = planned(cfg, 1, 4)
    # mmengine's own scaling would take the batch of one iteration, 2, for that of a step, 8.
    assert plan.lr == cfg.optim_wrapper.optimizer.lr == pytest.approx(1e-4 * 8 / 16) and not cfg.auto_scale_lr.enable
    cfg.auto_scale_lr.enable = True  # as a run dumps it, which accumulates itself, and --auto-scale-lr once more
    again, _ = planned(cfg, 1)
    assert again.lr == cfg.optim_wrapper.optimizer.lr == plan.lr


def test_the_optimizer_gets_the_rate_of_the_plan(tiny_seg_config: Path, tmp_path: Path, train):
    """Also of a config that accumulates itself, and in what is logged as base_lr."""
    with tiny_seg_config.open("a") as file:
        file.write(
            "optim_wrapper.update(accumulative_counts=4)\n"
            'optim_wrapper["paramwise_cfg"] = dict(custom_keys={"decode_head": dict(lr_mult=10)})\n'
            "auto_scale_lr = dict(enable=False, base_batch_size=16)\n"
        )
    train("--auto-scale-lr", options=["train_cfg.max_epochs=1"])
    rate = 0.01 * 8 / 16
    groups = torch.load(tmp_path / "run" / "epoch_1.pth", weights_only=True)["optimizer"]["param_groups"]
    assert {round(group["lr"], 9) for group in groups} == {rate, 10 * rate}
    assert json.loads((tmp_path / "run" / "results.json").read_text())["batch"]["lr"] == rate
    (log,) = (tmp_path / "run").glob("*/vis_data/scalars.json")
    logged = [json.loads(line) for line in log.read_text().splitlines()]
    assert {row["base_lr"] for row in logged if "base_lr" in row} == {rate}


def test_what_counts_iterations_is_stretched_and_what_counts_epochs_is_not():
    cfg = config(custom_hooks=[dict(type="EMAHook")])
    _, sentences = planned(cfg, 1, "auto")
    assert cfg.optim_wrapper.accumulative_counts == 8 and batch_plan.WANTED not in cfg
    assert cfg.train_cfg == dict(type="EpochBasedTrainLoop", max_epochs=12, val_interval=1)
    assert cfg.param_scheduler[0].end == 4000 and cfg.param_scheduler[1].milestones == [8, 11]
    assert "param_scheduler.0.end 500 → 4000" in sentences[1] and "custom_hooks" in sentences[2]

    cfg = config()
    cfg.train_cfg = dict(type="IterBasedTrainLoop", max_iters=100, val_interval=10, dynamic_intervals=[(50, 5)])
    cfg.param_scheduler = [
        dict(type="MultiStepLR", by_epoch=False, end=100, milestones=[60, 80]),
        dict(type="CosineAnnealingLR", by_epoch=False, T_max=90),
        dict(type="CosineAnnealingLR", T_max=12, convert_to_iter_based=True),
    ]
    cfg.default_hooks = dict(checkpoint=dict(by_epoch=False, interval=10))
    planned(cfg, 4, "auto")
    assert (cfg.train_cfg.max_iters, cfg.train_cfg.val_interval) == (200, 20)
    assert cfg.train_cfg.dynamic_intervals == [(100, 10)] and cfg.default_hooks.checkpoint.interval == 20
    assert cfg.param_scheduler[0].milestones == [120, 160] and cfg.param_scheduler[0].end == 200
    assert cfg.param_scheduler[1].T_max == 180 and cfg.param_scheduler[2].T_max == 12


@pytest.mark.parametrize(
    ("changes", "processes", "accumulate", "message"),
    [
        ({}, 3, "auto", r"not a multiple of 2 a process × 3.*number of processes to a divisor of 16"),
        ({"train_dataloader.batch_size": 3}, 2, "auto", r"train_dataloader.batch_size to one of \[1, 2, 4, 8\]"),
        ({"auto_scale_lr": dict(enable=False)}, 1, "auto", None),
        ({"optim_wrapper.accumulative_counts": 4}, 1, 2, "the config itself accumulates"),
        ({"param_scheduler": [dict(type="ExponentialLR", gamma=0.9, by_epoch=False)]}, 1, 2, "ExponentialLR"),
    ],
)
def test_what_cannot_be_planned_is_refused(changes, processes, accumulate, message):
    cfg = config(**changes)
    if message is None:
        del cfg.auto_scale_lr["base_batch_size"]
    with pytest.raises(ValueError, match=message or "no auto_scale_lr.base_batch_size"):
        planned(cfg, processes, accumulate)


PLAIN = """
model["backbone"] = dict(
    type="mst_transfer.TimmViT", arch="vit_tiny_patch16_224", img_size=32, patch_size=8, embed_dim=24, depth=2,
    num_heads=3, out_indices=(1,),
)
model["decode_head"].update(in_channels=24, in_index=0, norm_cfg=None)
train_dataloader["sampler"]["shuffle"] = False
default_hooks["checkpoint"]["interval"] = 2
optim_wrapper["optimizer"] = dict(type="SGD", lr=0.1, momentum=0.9)
param_scheduler = [dict(type="MultiStepLR", by_epoch=False, milestones=[3], gamma=0.1)]
auto_scale_lr = dict(base_batch_size=4)
"""


def test_an_accumulated_run_equals_one_of_large_batches(tiny_seg_config: Path, tmp_path: Path, train):
    """No batch norm, every loss a mean over equally many pixels: the same steps but for rounding, to the last epoch."""
    tiny_seg_config.write_text(tiny_seg_config.read_text() + PLAIN)
    weights, logs = {}, {}
    train(into="large", options=["train_dataloader.batch_size=4"])
    train("--accumulate", "auto", into="small")
    for name in ("large", "small"):
        saved = torch.load(tmp_path / name / "epoch_2.pth", weights_only=True, map_location="cpu")
        weights[name], logs[name] = saved["state_dict"], next((tmp_path / name).glob("*/*.log")).read_text()
        assert saved["optimizer"]["param_groups"][0]["lr"] == pytest.approx(0.01)
    for name, value in weights["large"].items():
        torch.testing.assert_close(weights["small"][name], value, rtol=1e-4, atol=1e-6)
    plan = json.loads((tmp_path / "small" / "results.json").read_text())["batch"]
    assert (plan["per_process"], plan["processes"], plan["accumulation"], plan["effective"]) == (2, 1, 2, 4)
    assert "both are the recipe's" in logs["large"] and "param_scheduler.0.milestones [3] → [6]" in logs["small"]


def test_the_option_is_read(train, capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit):
        train("--accumulate", "0")
    assert "is not a whole number from 1" in capsys.readouterr().err
    assert "no auto_scale_lr.base_batch_size" in train("--accumulate", "auto", "--check-only", status=1)


@pytest.mark.parametrize(
    "changes, processes, refused",
    [
        ({}, 1, True),
        ({}, 2, False),
        ({"train_dataloader.batch_size": 2}, 1, False),
        ({"model.decode_head.pool_scales": (2, 3)}, 1, False),
        ({"model.decode_head.type": "FCNHead"}, 1, False),
        ({"model.decode_head.norm_cfg.type": "GN"}, 1, False),
    ],
)
def test_one_image_in_one_process_is_too_few_for_pooling_to_one_value(changes, processes, refused):
    """torch's BatchNorm raises on one value a channel: mmseg's UPerHead and PSPHead pool each image to that."""
    head = dict(type="UPerHead", pool_scales=(1, 2, 3, 6), norm_cfg=dict(type="SyncBN"))
    cfg = config(**{"train_dataloader.batch_size": 1, "model": dict(decode_head=head)})
    cfg.merge_from_dict(changes)
    plan = batch_plan.plan_batch(cfg, processes)
    if not refused:
        return batch_plan.check_batch_norm(cfg, plan)
    with pytest.raises(ValueError, match=r"decode_head \(UPerHead\).*batch_size=1.*batch_size=2"):
        batch_plan.check_batch_norm(cfg, plan)
