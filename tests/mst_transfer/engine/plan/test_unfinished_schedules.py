"""Schedulers that a run is too short for are named, with the option that makes them fit."""

import json
from pathlib import Path

import pytest
from mmengine.config import Config

from mst_transfer.cli.main import main
from mst_transfer.configs.keys import parse_cfg_options
from mst_transfer.engine.plan.unfinished_schedules import unfinished_schedules


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


def test_of_an_accumulated_run_the_option_counts_steps():
    """8,000 iterations are 1,000 of the config's own; a tenth of the run's 1,200 are 15 of them."""
    warm_up = dict(param_scheduler=[dict(type="LinearLR", by_epoch=False, begin=0, end=8000)])
    (sentence,) = unfinished_schedules(warm_up, 1200, 12, stretch=8)
    assert "param_scheduler.0 (LinearLR) goes beyond the run: end 8000, and the run has 1200 iter" in sentence
    assert sentence.endswith(
        "--cfg-options param_scheduler.0.end=15 (8 iterations count as one there, as they make a step)"
    )
    assert unfinished_schedules(warm_up, 8000, 12, stretch=8) == []


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
