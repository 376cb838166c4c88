"""``results.json`` reports the last step's weights and the whole run, resumed or not."""

import json
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
import tiny_tasks
import torch
from mmengine.config import Config

from mst_transfer.cli.main import main
from mst_transfer.engine import results
from mst_transfer.engine.run_record import SECONDS


def read(work_dir: Path) -> dict:
    return json.loads((work_dir / "results.json").read_text())


def test_only_the_last_validation_counts(tmp_path: Path, train, monkeypatch: pytest.MonkeyPatch) -> None:
    from mmseg.evaluation import IoUMetric

    scores: list[dict] = [dict(mIoU=90.0, early=1.0), {}]  # of the next validations
    monkeypatch.setattr(IoUMetric, "compute_metrics", lambda self, results: scores.pop(0))
    train(options=["+default_hooks.checkpoint.save_best=mIoU", "+default_hooks.checkpoint.rule=greater"])
    assert read(tmp_path / "run")["metrics"] == {}
    scores += [dict(mIoU=10.0)]
    train("--resume")
    assert read(tmp_path / "run")["metrics"] == dict(mIoU=10.0)
    # mmengine's own loop validates nothing after the last epoch: the first epoch's figure is not the second's
    train("--resume", options=["+exact_resume=False"])
    assert read(tmp_path / "run")["metrics"] == {} and not scores
    best = str(tmp_path / "run" / "best_mIoU_epoch_1.pth")  # knows its own figure, which needs no second validation
    train("--resume", best, into="again", options=["train_cfg.max_epochs=1"])
    assert read(tmp_path / "again")["metrics"] == dict(mIoU=90.0, early=1.0)


def test_minutes_are_of_the_whole_run(tmp_path: Path, train) -> None:
    train(options=["train_cfg.max_epochs=1"])
    path = tmp_path / "run" / "epoch_1.pth"
    checkpoint = torch.load(path, weights_only=True)
    assert 0 < checkpoint["meta"][SECONDS] <= 60 * read(tmp_path / "run")["minutes"] + 0.1
    checkpoint["meta"][SECONDS] = 6000.0
    torch.save(checkpoint, tmp_path / "long.pth")
    train("--resume", str(tmp_path / "long.pth"), into="long")
    assert 100 < read(tmp_path / "long")["minutes"] < 110
    assert torch.load(tmp_path / "long" / "epoch_2.pth", weights_only=True)["meta"][SECONDS] > 6000
    # weights only: a run of its own
    train(into="new", options=[f"load_from={tmp_path / 'long.pth'}", "train_cfg.max_epochs=1"])
    assert read(tmp_path / "new")["minutes"] < 10


def test_a_detector_that_finds_nothing_has_figures_of_zero(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    config = tiny_tasks.write_config("det", tmp_path)
    blind = ["model.test_cfg.rcnn.score_thr=1.1", "model.test_cfg.rpn.max_per_img=4"]
    options = ["train_cfg.max_epochs=1", "train_cfg.val_interval=1", *blind]
    words = tiny_tasks.command("det", config, tmp_path / "run", options, resume=False)
    assert main(["train", *words]) == 0
    trained = read(tmp_path / "run")
    assert trained["metrics"]["coco/bbox_mAP"] == 0 and trained["metrics"]["coco/bbox_mAP_50"] == 0
    assert trained["coco_images"] == dict(evaluated=2, annotated=11)
    capsys.readouterr()
    words = [str(config), str(tmp_path / "run" / "iter_6.pth"), "--work-dir", str(tmp_path / "t"), "--cfg-options"]
    assert main(["test", *words, *blind]) == 0
    assert read(tmp_path / "t")["metrics"] == trained["metrics"]
    assert "coco/bbox_mAP: 0.0000" in capsys.readouterr().out


def test_testing_takes_files_of_ones_own_as_training_does(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """``mst test --coco``: a box of another file, with a class of another name."""
    config = tiny_tasks.write_config("det", tmp_path)
    content = json.loads((tmp_path / "data" / "boxes.json").read_text())
    content["categories"][0]["name"] = "tile"
    for name, images in (("train", content["images"][:6]), ("val", content["images"][6:])):
        chosen = [one for one in content["annotations"] if one["image_id"] in {image["id"] for image in images}]
        (tmp_path / f"{name}.json").write_text(json.dumps(content | dict(images=images, annotations=chosen)))
    own = ["--coco", str(tmp_path / "train.json"), str(tmp_path / "val.json")]
    own += ["--coco-images", *[str(tmp_path / "data" / "images")] * 2]
    words = tiny_tasks.command("det", config, tmp_path / "run", ["train_cfg.max_epochs=1"], resume=False)
    assert main(["train", *words, *own]) == 0
    checkpoint = str(tmp_path / "run" / f"iter_{6 // 2}.pth")
    (tmp_path / "data" / "boxes.json").unlink()
    capsys.readouterr()
    assert main(["test", str(config), checkpoint, "--work-dir", str(tmp_path / "t"), *own]) == 0
    assert "tile" in capsys.readouterr().out
    tested = read(tmp_path / "t")
    assert tested["coco_images"] == dict(evaluated=2, annotated=5)
    assert tested["metrics"] == read(tmp_path / "run")["metrics"]


def test_what_is_not_a_number_is_null(tmp_path: Path) -> None:
    hub = SimpleNamespace(get_info=lambda name: None)
    runner = SimpleNamespace(rank=0, seed=0, world_size=1, work_dir=tmp_path, message_hub=hub, logger=MagicMock())
    results.write_results(runner, Config(dict(model=dict())), dict(a=1.5, b=float("nan")), "test", seconds=1)
    text = (tmp_path / "results.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail)["metrics"] == dict(a=1.5, b=None)
