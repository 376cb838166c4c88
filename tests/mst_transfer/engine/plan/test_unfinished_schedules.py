"""Schedulers that a run is too short for are named, with the option that makes them fit."""

import json
import re
from pathlib import Path

import pytest
from mmengine.config import Config

from mst_transfer.cli.main import main
from mst_transfer.configs.keys import parse_cfg_options
from mst_transfer.engine.plan import batch_plan
from mst_transfer.engine.plan.unfinished_schedules import unfinished_schedules
from mst_transfer.engine.run import load_run_config

COCO_IMAGES = 117266  # with annotations: what mmdet trains on


def swin_on(num_images: int, accumulate: int | str | None, **options) -> tuple[list[str], Config]:
    """The Swin recipe's schedulers on a set of so many images, on one process of two images."""
    options = {"model.backbone.checkpoint": None} | options
    cfg = load_run_config("det_configs/mst_maskrcnn_swin_tiny_coco.py", accumulate=accumulate, cfg_options=options)
    plan = batch_plan.plan_batch(cfg, 1)
    batch_plan.apply_batch_plan(cfg, plan)
    num_epochs = cfg.train_cfg.max_epochs
    num_iters = -(-num_images // 2) * num_epochs
    return unfinished_schedules(cfg, num_iters, num_epochs, plan.stretch), cfg


@pytest.mark.parametrize("accumulate", [None, "auto"])
def test_a_warm_up_longer_than_the_run_is_named_and_the_option_mends_it(accumulate):
    assert swin_on(COCO_IMAGES, accumulate)[0] == []
    if accumulate is None:  # 1,200 iterations, each a step: the warm-up of 1,000 just fits
        assert swin_on(200, None)[0] == []
    (sentence,), _ = swin_on(200 if accumulate else 100, accumulate)
    end, length = ("8000", "1200") if accumulate else ("1000", "600")
    assert (
        f"param_scheduler.0 (LinearLR) goes beyond the run: end {end}" in sentence and f"has {length} iter" in sentence
    )
    (option,) = re.findall(r"--cfg-options (\S+)", sentence)
    mended, cfg = swin_on(200 if accumulate else 100, accumulate, **parse_cfg_options([option]))
    assert mended == [] and cfg.param_scheduler[0].end in (60, 120)


@pytest.mark.parametrize(
    ("scheduler", "option"),
    [
        (dict(type="MultiStepLR", begin=0, end=12, milestones=[8, 11]), "milestones=[2,3]"),
        (dict(type="MultiStepLR", milestones=[2, 3]), None),
        (dict(type="MultiStepLR", milestones=[3, 4]), "milestones=[2,3]"),
        (dict(type="MultiStepLR", by_epoch=False, milestones=[100, 250]), "milestones=[79,199]"),
        (dict(type="PolyLR", by_epoch=False, begin=50, end=201), "end=200"),
        (dict(type="PolyLR", by_epoch=False, begin=50, end=200), None),
        (dict(type="CosineAnnealingLR", T_max=4, convert_to_iter_based=True), None),
        (dict(type="CosineAnnealingLR", begin=1, T_max=4), "T_max=3"),
        (dict(type="ConstantLR", by_epoch=False, begin=0, end=500), "end=20"),
        (dict(type="ExponentialLR", gamma=0.9), None),
    ],
)
def test_what_does_not_fit_in_4_epochs_of_50_iterations(scheduler, option):
    cfg = Config(dict(param_scheduler=scheduler))
    found = unfinished_schedules(cfg, 200, 4)
    assert [sentence.split("--cfg-options param_scheduler.")[1] for sentence in found] == ([option] if option else [])
    if option:
        cfg.merge_from_dict(parse_cfg_options([f"param_scheduler.{option}"]))
        assert unfinished_schedules(cfg, 200, 4) == []


def test_training_and_the_dry_run_say_it(tiny_seg_config: Path, tmp_path: Path, train, capsys: pytest.CaptureFixture):
    with tiny_seg_config.open("a") as file:
        file.write('param_scheduler = [dict(type="LinearLR", start_factor=0.1, by_epoch=False, begin=0, end=9)]\n')
    assert main(["train", str(tiny_seg_config), "--dry-run", "1"]) == 0
    assert "--cfg-options param_scheduler.0.end=2" in capsys.readouterr().out  # 8 iterations
    train()
    (sentence,) = json.loads((tmp_path / "run" / "results.json").read_text())["unfinished_schedules"]
    assert sentence in next((tmp_path / "run").glob("*/*.log")).read_text()
    train(into="mended", options=["param_scheduler.0.end=2"])
    assert "unfinished_schedules" not in json.loads((tmp_path / "mended" / "results.json").read_text())
    (log,) = (tmp_path / "mended").glob("*/vis_data/scalars.json")
    assert [json.loads(line)["lr"] for line in log.read_text().splitlines() if '"lr"' in line][-1] == 0.01
