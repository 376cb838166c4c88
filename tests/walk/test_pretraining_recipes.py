"""Every recipe of pre-training from photographs to figure, at its real image sizes and batches."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from lives import ROOT
from mmengine.config import Config
from pretrained import pretrained

from mst_transfer.probes.main import main as evaluate
from pretrain.pictures import __main__ as pictures

CONFIGS = ROOT / "pretrain" / "configs"
RECIPES = sorted(path.relative_to(ROOT).as_posix() for path in CONFIGS.rglob("*.py") if path.parent.name != "_base_")


@pytest.mark.parametrize("name", RECIPES)
def test_from_photographs_to_figure(
    name: str, walk_folder: Path, data_root: Path, record: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    life = pretrained(name, walk_folder)
    for stage in life.stages:
        record(stage)
    teacher = life.work_dir / "teacher.safetensors"
    data = Config.fromfile(ROOT / name).train_dataloader.dataset
    labelled = data_root / ("photos" if data.global_size < 224 else "imagenet")

    out = life.work_dir / "knn.json"
    capsys.readouterr()
    words = [str(teacher), str(labelled), "--k", "5", "--out", str(out), "--num-workers", "0"]
    assert evaluate("eval_knn", words) == 0
    printed, written = capsys.readouterr().out, json.loads(out.read_text())
    assert json.loads(printed[printed.index("\n{") :]) == written and 0 <= written["top1"]["5"] <= 100
    record("k-NN")

    drawn = life.work_dir / "pictures"
    words = [str(life.work_dir), "--images", str(labelled / "val"), "--out", str(drawn), "--num", "2"]
    assert pictures.main(words) == 0
    assert all((drawn / entry["file"]).is_file() for entry in json.loads((drawn / "index.json").read_text()))
    record("pictures")
