"""Heads and cards in TensorBoard, MLflow and Weights & Biases; pre-trainings: ``tests/pretrain/run``."""

import json

import pytest
import torch
from small_vit import make_metadata, make_vit
from tracked_runs import events, mlflow_runs, wandb_rows

import mst_transfer
from mst_transfer.card import evaluate
from mst_transfer.card.run_jobs import run_job, unfinished
from mst_transfer.checkpoint import save_backbone
from mst_transfer.engine import runner

ALL = ["tensorboard", "mlflow", "wandb"]
pytestmark = pytest.mark.usefixtures("local_trackers")


@pytest.fixture
def seg_config(tiny_seg_config):
    """With the visualizer of mmseg's recipes."""
    drawn = 'visualizer = dict(type="SegLocalVisualizer", vis_backends=[dict(type="LocalVisBackend")])'
    tiny_seg_config.write_text(f"{tiny_seg_config.read_text()}\n{drawn}\n")
    return tiny_seg_config


@pytest.fixture
def packages():
    for name in ALL:
        pytest.importorskip(name, reason=f"{name} is not installed")


def test_a_head_shows_curves_figures_and_pictures_and_learns_the_same(packages, seg_config, tmp_path):
    options = {"train_cfg.max_epochs": 1}
    done = mst_transfer.train(seg_config, work_dir=tmp_path / "run", track=ALL, cfg_options=options)
    scalars, read = events(tmp_path / "run")
    assert scalars["mIoU"][-1][1] == pytest.approx(done.metrics["mIoU"]) and scalars["loss"]
    assert read.Tags()["images"] and len(read.Images("val_0")) == 1
    client, (run,) = mlflow_runs(tmp_path / "run")
    assert run.data.metrics["mIoU"] == pytest.approx(done.metrics["mIoU"])
    assert {"val_0_4.png", "config.py"} <= {one.path for one in client.list_artifacts(run.info.run_id)}
    ((_, keys, rows),) = wandb_rows(tmp_path / "run")
    assert rows[-1]["mIoU"] == pytest.approx(done.metrics["mIoU"]) and "model" in keys
    plain = mst_transfer.train(seg_config, work_dir=tmp_path / "plain", cfg_options=options)
    one, other = (torch.load(path.checkpoint, weights_only=True)["state_dict"] for path in (done, plain))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_picture_that_cannot_be_drawn_stops_no_run(seg_config, tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "LoadImage", lambda: lambda results: {})
    options = {"train_cfg.max_epochs": 1}
    done = mst_transfer.train(seg_config, work_dir=tmp_path / "run", track=["tensorboard"], cfg_options=options)
    (log,) = (tmp_path / "run").glob("2*/*.log")
    assert log.read_text().count("no pictures of validations: KeyError: 'img'") == 1 and done.checkpoint.is_file()


def test_a_card_shows_its_figures_and_its_page_and_goes_on_in_the_same_runs(packages, tmp_path, monkeypatch):
    def run_here(folder, plan, *_):
        return [job.id for job in unfinished(folder, plan) if run_job(folder, job.id)]

    monkeypatch.setattr(evaluate, "run_all", run_here)
    save_backbone(tmp_path / "a.safetensors", make_vit().state_dict(), make_metadata())
    write_class_folders(tmp_path / "images")
    out = tmp_path / "card"
    for _ in range(2):
        options = dict(images=tmp_path / "images", labels=["100%"], seeds=[0], track=ALL)
        card = mst_transfer.evaluate([tmp_path / "a.safetensors"], out, **options)
    expected = {f"images/{row['protocol']}/top-1/100 percent/a": row["value"] for row in card["rows"]}
    assert expected
    scalars, read = events(out)
    assert {name: scalars[name][-1][1] for name in expected} == pytest.approx(expected)
    low = f"{next(iter(expected))} low"
    assert scalars[low][-1][1] == pytest.approx(card["rows"][0]["ci95"][0])
    assert any(tag.startswith("card") for tag in read.Tags()["tensors"])
    client, (run,) = mlflow_runs(out)
    assert {name: run.data.metrics[name] for name in expected} == pytest.approx(expected)
    assert {"card.html", "card.md", "card.json"} <= {one.path for one in client.list_artifacts(run.info.run_id)}
    starts = wandb_rows(out)
    assert len({name for name, _, _ in starts}) == 1 and len(starts) == 2
    found = {name: value for _, _, rows in starts for row in rows for name, value in row.items()}
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    assert list(out.glob("wandb/offline-run-*/files/media/html/card*.html"))
    assert json.loads((out / "trackers.json").read_text())["mlflow"] == run.info.run_id


def write_class_folders(folder):
    import cv2
    import numpy as np

    random = np.random.default_rng(0)
    for split in ("train", "val"):
        for name, level in (("dark", 40), ("light", 200)):
            (folder / split / name).mkdir(parents=True)
            for number in range(4):
                picture = (level + random.integers(-30, 30, (32, 32, 3))).astype(np.uint8)
                cv2.imwrite(str(folder / split / name / f"{number}.png"), picture)
