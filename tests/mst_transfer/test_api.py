"""The functions of the package: what they return equals what the commands write."""

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import timm
import torch

import mst_transfer
from mst_transfer.runs import stop

NAMES = ("pretrain", "train", "predict", "load_backbone", "probe")


def test_names_are_there_and_importing_stays_cheap() -> None:
    """Nothing is loaded before a function is asked for; ``dir`` and ``from … import`` know them."""
    assert set(NAMES) < {*dir(mst_transfer), *mst_transfer.__all__} and all(
        getattr(mst_transfer, name).__doc__ for name in NAMES
    )
    with pytest.raises(AttributeError, match="no attribute 'prdict'"):
        _ = mst_transfer.prdict
    code = "import sys, mst_transfer; print({'torch', 'mmengine', 'numpy', 'pretrain', 'mmdet'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


@pytest.mark.parametrize("given, found", [(None, "2000"), ("7", "7")])
def test_waiting_threads_are_told_to_give_up_their_core(given: str | None, found: str) -> None:
    """Before torch is there, whose OpenMP reads it once; not where the user has said otherwise."""
    environment = {key: value for key, value in os.environ.items() if key != "GOMP_SPINCOUNT"}
    environment |= {} if given is None else dict(GOMP_SPINCOUNT=given)
    code = "import os, mst_transfer; print(os.environ['GOMP_SPINCOUNT'])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert run.stdout.strip() == found


def test_train_and_predict(tiny_seg_config: Path, tmp_path: Path) -> None:
    stop.agree(stop.INTERRUPTED)  # of an earlier run in this process
    done = mst_transfer.train(
        tiny_seg_config, work_dir=tmp_path / "run", seed=3, cfg_options={"train_cfg.max_epochs": 1}
    )
    written = json.loads((tmp_path / "run" / "results.json").read_text())
    assert done.work_dir == tmp_path / "run" and done.checkpoint == tmp_path / "run" / "epoch_1.pth"
    assert done.metrics == written["metrics"] and 0 <= done.metrics["mIoU"] <= 100 and written["seed"] == 3
    with pytest.raises(ValueError, match="holds checkpoints of an earlier run"):
        mst_transfer.train(tiny_seg_config, work_dir=tmp_path / "run")
    with pytest.raises(ValueError, match="did you mean 'optim_wrapper'"):
        mst_transfer.train(tiny_seg_config, cfg_options={"optm_wrapper.x": 1})
    shown = mst_transfer.predict(done.work_dir, tmp_path / "tiny data" / "images")
    assert shown.num_images == 8 and (shown.folder / "labels" / "0.png").is_file() and not shown.unreadable


def test_load_backbone(saved) -> None:
    source, path = saved
    model, report = mst_transfer.load_backbone(path)
    images = torch.rand(1, 3, *source.patch_embed.img_size)
    with torch.no_grad():
        torch.testing.assert_close(model.eval().forward_features(images), source.eval().forward_features(images))
    assert len(report.loaded) == len(model.state_dict()) and not report.missing
    resized, report = mst_transfer.load_backbone(str(path), img_size=64, dynamic_img_size=True)
    assert resized.patch_embed.img_size == (64, 64) and set(report.resized) == {"pos_embed"}


def test_load_backbone_of_foreign_files(tmp_path: Path) -> None:
    torch.save(timm.create_model("vit_tiny_patch16_224", depth=2).state_dict(), tmp_path / "timm.pth")
    model, _ = mst_transfer.load_backbone(tmp_path / "timm.pth")
    assert len(model.blocks) == 2
    with pytest.raises(ValueError, match="width 192, depth 2; model: width 384, depth 12"):
        mst_transfer.load_backbone(tmp_path / "timm.pth", arch="vit_small_patch16_224")
    with pytest.raises(FileNotFoundError, match="gone.pth"):
        mst_transfer.load_backbone("gone.pth")


def test_probe(saved, tmp_path: Path, capsys) -> None:
    from mst_transfer.probes.main import main

    random = np.random.default_rng(0)
    for split in ("train", "val"):
        for name, level in (("dark", 40), ("light", 200)):
            (tmp_path / split / name).mkdir(parents=True)
            for number in range(4):
                picture = (level + random.integers(-30, 30, (32, 32, 3))).astype(np.uint8)
                cv2.imwrite(str(tmp_path / split / name / f"{number}.png"), picture)
    knn = mst_transfer.probe(saved[1], tmp_path, k=[1, 3])
    capsys.readouterr()
    assert main("eval_knn", [str(saved[1]), str(tmp_path), "--k", "1", "3"]) == 0
    shown = capsys.readouterr().out
    assert knn["top1"] == json.loads(shown[shown.index("{\n") :])["top1"] and set(knn["top1"]) == {"1", "3"}
    linear = mst_transfer.probe(saved[1], tmp_path, "linear", cache=True, epochs=2, lr=[0.1])
    assert linear["protocol"] == "linear" and 0 <= linear["top1"] <= 100
    with pytest.raises(ValueError, match="protocol='nearest' is not known; choose knn or linear"):
        mst_transfer.probe(saved[1], tmp_path, "nearest")
    with pytest.raises(ValueError, match="knn has no option epochs; it has "):
        mst_transfer.probe(saved[1], tmp_path, epochs=3)
