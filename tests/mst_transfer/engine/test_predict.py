"""A head on a folder of images: files and pictures, equal to what the libraries' own inference gives."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.registry import MODELS, init_default_scope
from PIL import Image
from pycocotools.coco import COCO
from tiny_tasks import write_config

from mst_transfer.cli.main import main
from mst_transfer.configs.saved import write_saved_config
from mst_transfer.engine.predict import TrainedHead, predict
from mst_transfer.engine.run import load_run_config

SIZES = {"a.jpg": (48, 64), "a.png": (37, 53), "in/b c.jpg": (64, 48), "in/deep/d.png": (96, 96)}


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Four images of four sizes in nested folders, a broken one, and a text."""
    folder, random = tmp_path / "images", np.random.default_rng(0)
    for name, (height, width) in SIZES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        blocks = random.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / name), cv2.resize(blocks, (width, height), interpolation=cv2.INTER_CUBIC))
    (folder / "in" / "broken.jpg").write_bytes((folder / "a.jpg").read_bytes()[:-50])
    (folder / "note.txt").write_text("no image")
    return folder


def untrained(config: Path, run: Path) -> Path:
    """The work dir of a run of no step: config as data, and a checkpoint of random weights."""
    cfg = load_run_config(str(config), work_dir=str(run))
    run.mkdir()
    write_saved_config(cfg, run / "run_config.json")
    init_default_scope(cfg.default_scope)
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    meta = dict(cfg.test_dataloader.dataset.metainfo)
    torch.save({"state_dict": model.state_dict(), "meta": {"dataset_meta": meta}}, run / "epoch_1.pth")
    return run


@pytest.fixture
def detector(tmp_path: Path) -> Path:
    return untrained(write_config("det", tmp_path), tmp_path / "run")


@pytest.fixture
def segmentor(tiny_seg_config: Path, tmp_path: Path) -> Path:
    return untrained(tiny_seg_config, tmp_path / "run")


def names_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_detector(detector: Path, images: Path, capsys) -> None:
    from mmdet.apis import inference_detector

    assert main(["predict", str(detector), str(images), "--score", "0"]) == 0
    said, out = capsys.readouterr(), detector / "predictions"
    assert "4 images, " in said.out and "1 unreadable" in said.out and str(out) in said.out
    assert said.err.count("broken.jpg cannot be read: ") == 1
    drawn = {"drawn/a.jpg", "drawn/a.png.jpg", "drawn/in/b c.jpg", "drawn/in/deep/d.jpg"}
    assert names_in(out) == {"predictions.json", *drawn}
    content = json.loads((out / "predictions.json").read_text())
    assert list(content["info"]["unreadable"]) == ["in/broken.jpg"]
    assert content["categories"] == [{"id": 1, "name": "square", "color": [220, 20, 60]}]
    coco, head = COCO(str(out / "predictions.json")), TrainedHead(detector)
    head.model.cfg = load_run_config(str(detector / "run_config.json"))
    for image in content["images"]:
        height, width = SIZES[image["file_name"]]
        assert (image["height"], image["width"]) == (height, width)
        expected = inference_detector(head.model, str(images / image["file_name"])).pred_instances
        found = coco.loadAnns(coco.getAnnIds(imgIds=image["id"]))
        assert len(found) == len(expected) > 0
        corners = torch.tensor([one["bbox"] for one in found])
        corners[:, 2:] += corners[:, :2]
        torch.testing.assert_close(corners, expected.bboxes)
        torch.testing.assert_close(torch.tensor([one["score"] for one in found]), expected.scores)
        for one, mask in zip(found, expected.masks.numpy(), strict=True):
            assert np.array_equal(coco.annToMask(one), mask) and one["area"] == mask.sum()
        stem = "a.png" if image["file_name"] == "a.png" else image["file_name"].rpartition(".")[0]
        assert cv2.imread(str(out / "drawn" / f"{stem}.jpg")).shape == (height, width, 3)


def test_a_score_leaves_out_objects(detector: Path, images: Path, tmp_path: Path) -> None:
    counts = [predict(detector, images, tmp_path / str(score), score=score).num_objects for score in (0.0, 0.5, 1.0)]
    assert counts[0] > counts[2] == 0 and counts[0] >= counts[1]


def test_a_segmentor(segmentor: Path, images: Path, tmp_path: Path) -> None:
    from mmseg.apis import inference_model

    done = predict(segmentor, images, tmp_path / "out")
    assert (done.num_images, done.num_objects, list(done.unreadable)) == (4, 0, ["in/broken.jpg"])
    content, head = json.loads((done.folder / "predictions.json").read_text()), TrainedHead(segmentor)
    assert [(one["id"], one["name"]) for one in content["categories"]] == [(0, "dark"), (1, "light")]
    head.model.cfg = load_run_config(str(segmentor / "run_config.json"))
    head.model.cfg.test_pipeline = head.model.cfg.test_dataloader.dataset.pipeline
    for name, size in SIZES.items():
        stem = "a.png" if name == "a.png" else name.rpartition(".")[0]
        labels = np.asarray(Image.open(done.folder / "labels" / f"{stem}.png"))
        expected = inference_model(head.model, str(images / name)).pred_sem_seg.data[0].numpy()
        assert labels.shape == size and labels.dtype == np.uint8 and np.array_equal(labels, expected)
        assert cv2.imread(str(done.folder / "drawn" / f"{stem}.jpg")).shape == (*size, 3)


def test_a_config_is_adapted_as_in_training(images: Path, tmp_path: Path) -> None:
    """mmseg's segmentor on patches of 8: label maps are those of ours, also where sides are no multiple of 8."""
    config = write_config("seg", tmp_path)
    checkpoint = untrained(config, tmp_path / "run") / "epoch_1.pth"
    out = predict(config, images, tmp_path / "out", checkpoint=checkpoint).folder
    ours = tmp_path / "ours.py"
    ours.write_text(config.read_text().replace('"EncoderDecoder"', '"mst_transfer.SlideEncoderDecoder"'))
    expected = predict(ours, images, tmp_path / "expected", checkpoint=checkpoint).folder
    for stem in ("a", "a.png", "in/b c", "in/deep/d"):
        labels, wanted = (np.asarray(Image.open(folder / "labels" / f"{stem}.png")) for folder in (out, expected))
        assert np.array_equal(labels, wanted) and len(np.unique(wanted)) == 2


def test_no_label_map_takes_the_place_of_another(segmentor: Path, images: Path, tmp_path: Path) -> None:
    folder = tmp_path / "alike"
    folder.mkdir()
    sizes = {"a.jpg": (48, 64), "a.m.jpg": (32, 40), "a.png": (37, 53)}  # in this order, "a.m" between the two
    for name, size in sizes.items():
        cv2.imwrite(str(folder / name), np.full((*size, 3), 100, np.uint8))
    predict(segmentor, folder, tmp_path / "out")
    for name, stem in zip(sizes, ("a", "a.m", "a.png"), strict=True):
        assert Image.open(tmp_path / "out" / "labels" / f"{stem}.png").size == sizes[name][::-1]


def test_nothing_is_written_over_unasked(segmentor: Path, images: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("kept")
    words = ["predict", str(segmentor), str(images / "a.jpg"), "--out", str(tmp_path / "out")]
    assert main(words) == 1 and "--overwrite" in capsys.readouterr().err
    assert names_in(tmp_path / "out") == {"mine"}
    assert main([*words, "--overwrite"]) == 0
    assert names_in(tmp_path / "out") == {"mine", "predictions.json", "drawn/a.jpg", "labels/a.png"}


def test_pictures_of_an_earlier_time_are_no_input(segmentor: Path, images: Path) -> None:
    for _ in range(2):
        assert predict(segmentor, images, images / "out", overwrite=True).num_images == 4


def test_mistakes_are_refused(segmentor: Path, tiny_seg_config: Path, images: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "x.jpg").write_text("no image")
    other = tmp_path / "other.pth"
    torch.save({"state_dict": {}}, other)
    run, folder = str(segmentor), str(images)
    for words, message in (
        ([run, folder, "--score", "2"], "--score 2 must lie between 0 and 1"),
        ([run, str(tmp_path / "nowhere")], "nowhere"),
        ([run, str(tmp_path / "empty")], "No image"),
        ([run, str(tmp_path / "broken")], "none of the 1 images"),
        ([str(tiny_seg_config), folder], "--checkpoint"),
        ([str(tmp_path / "empty"), folder], "holds no config of a run"),
        ([run, folder, "--checkpoint", str(tmp_path / "gone.pth")], "gone.pth does not exist"),
        ([str(tiny_seg_config), folder, "--checkpoint", str(other)], "does not fit the model"),
        (["pretrain/configs/mst_vit_sample.py", folder, "--checkpoint", str(other)], "pre-training config"),
        ([run, folder, "--out", str(images / "a.jpg" / "out")], "name a folder instead of a file"),
    ):
        assert main(["predict", *words]) == 1
        assert message in capsys.readouterr().err
