"""The wheel, in an environment of its own and an empty folder: configs of a user's own train, evaluate and export."""

import json
import os
import shutil
import site
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
from fake_hub import TOKEN, fake_hub
from tracked_runs import mlflow_runs

pytestmark = pytest.mark.slow

DETECTION = """\
_base_ = "mst_transfer::det_configs/mst_maskrcnn_sample.py"
model = dict(backbone=dict(checkpoint=None))
train_dataloader = dict(batch_size=2, num_workers=0, dataset=dict(indices=4))
val_dataloader = dict(num_workers=0, dataset=dict(indices=4))
val_evaluator = dict(ann_file=None)
train_cfg = dict(max_epochs=1, val_interval=1)
"""
SEGMENTATION = """\
_base_ = "mst_transfer::seg_configs/mst_setr_pup_sample.py"
model = dict(backbone=dict(checkpoint=None))
train_dataloader = dict(batch_size=2, num_workers=0)
val_dataloader = dict(num_workers=0)
train_cfg = dict(max_iters=2, val_interval=2)
default_hooks = dict(checkpoint=dict(interval=2))
"""


class Outside:
    """An environment in which only the wheel and what it depends on is installed."""

    def __init__(self, python: Path, folder: Path) -> None:
        self.python, self.folder = python, folder
        self.environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "MST_DATA_ROOT")}

    def mst(self, *words: str) -> str:
        """What a command prints; it must succeed."""
        script = self.python.parent / ("mst.exe" if os.name == "nt" else "mst")
        done = subprocess.run(
            [script, *words], cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, f"mst {' '.join(words)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout

    def run(self, code: str) -> str:
        """What a piece of Python prints."""
        done = subprocess.run(
            [self.python, "-c", code], cwd=self.folder, env=self.environment, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()


@pytest.fixture(scope="module")
def outside(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Outside:
    """The dependencies are those of this environment, by a ``.pth`` file; this checkout is not among them."""
    place = tmp_path_factory.mktemp("outside")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(place / "wheel"), str(root)]
    done = subprocess.run(build, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = (place / "wheel").glob("mst_transfer-*.whl")
    venv.create(place / "environment", symlinks=os.name != "nt")
    python = place / "environment" / ("Scripts" if os.name == "nt" else "bin") / "python"
    subprocess.run([*pip, "--python", str(python), "install", "--no-deps", str(wheel)], check=True)
    own = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], capture_output=True, text=True
    ).stdout.strip()
    ours = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *site.getsitepackages()}
    (Path(own) / "dependencies.pth").write_text("\n".join(sorted(ours)) + "\n")
    (place / "empty").mkdir()
    return Outside(python, place / "empty")


def test_the_package_is_the_wheels(outside: Outside, root: Path) -> None:
    where = outside.run("import mst_transfer, pretrain; print(mst_transfer.__file__, pretrain.__file__)").split()
    assert all(path.startswith(str(outside.python.parent.parent)) for path in where)
    assert not any(path.startswith(str(root)) for path in where)
    assert (Path(where[0]).parent / "card" / "page.html").is_file()
    code = "from mst_transfer.configs import shipped; print(*shipped.available_configs())"
    assert "pretrain/configs/mst_vit_sample.py" in outside.run(code).split()
    assert "zoo://mst_nano" in outside.mst("zoo") and "would load     yes" in outside.mst("inspect", "zoo://mst_nano")


def test_six_lines_of_ones_own_train_and_evaluate(outside: Outside) -> None:
    outside.mst("sample-data", "data/sample", "--num-train", "8", "--num-val", "4", "--num-photos", "4")
    for name, text, metric in (("own_det", DETECTION, "bbox_mAP"), ("own_seg", SEGMENTATION, "mIoU")):
        assert len(text.splitlines()) == 6
        (outside.folder / f"{name}.py").write_text(text)
        outside.mst("train", f"{name}.py")
        results = json.loads((outside.folder / "work_dirs" / name / "results.json").read_text())
        assert any(key.endswith(metric) for key in results["metrics"]), results["metrics"]
    outside.mst("test", "own_seg.py", "work_dirs/own_seg/iter_2.pth")


def test_what_was_trained_is_inspected_and_exported(outside: Outside) -> None:
    trained = "work_dirs/own_det/epoch_1.pth"
    if not (outside.folder / trained).is_file():
        pytest.skip("the run that writes the checkpoint failed")
    arch = ["--arch", "vit_tiny_patch16_224", "--arch-options", "img_size=48", "patch_size=8"]
    arch += ["embed_dim=96", "depth=4", "num_heads=3"]
    for target, out in (("mst", "backbone.safetensors"), ("timm", "timm.pth")):
        printed = outside.mst("convert", trained, "--to", target, "-o", out, *arch)
        assert (outside.folder / out).is_file() and f"wrote {out}" in printed
    assert "vit_tiny_patch16_224" in outside.mst("inspect", "backbone.safetensors")


def write_yolo(coco: Path, folder: Path) -> None:
    """The boxes of ``coco/annotations`` as Ultralytics has them, without an outline."""
    for split in ("train", "val"):
        content = json.loads((coco / f"annotations/instances_{split}.json").read_text())
        shutil.copytree(coco / split, folder / "images" / split)
        (folder / "labels" / split).mkdir(parents=True)
        for image in content["images"]:
            size, lines = (image["width"], image["height"]), []
            for one in (one for one in content["annotations"] if one["image_id"] == image["id"]):
                sides = zip(one["bbox"][:2], one["bbox"][2:], size, strict=True)
                shares = [((low + length / 2) / whole, length / whole) for low, length, whole in sides]
                values = [*(middle for middle, _ in shares), *(share for _, share in shares)]
                lines.append(f"{one['category_id'] - 1} " + " ".join(f"{value:.6f}" for value in values))
            (folder / "labels" / split / image["file_name"]).with_suffix(".txt").write_text("\n".join(lines))
    names = [one["name"] for one in content["categories"]]
    (folder / "data.yaml").write_text(json.dumps({"train": "images/train", "val": "images/val", "names": names}))


def test_from_boxes_of_yolo_to_a_card(outside: Outside) -> None:
    """They are checked, learned without masks, and a card of probes rests on them."""
    outside.mst("sample-data", "data/boxes", "--num-train", "8", "--num-val", "4", "--num-photos", "4")
    write_yolo(outside.folder / "data/boxes/coco", outside.folder / "yolo")
    (outside.folder / "boxes.py").write_text(DETECTION.replace("ann_file=None", ""))
    said = outside.mst("train", "boxes.py", "--yolo", "yolo/data.yaml")
    assert "0 with outlines" in said and "the mask head is left out" in said
    results = json.loads((outside.folder / "work_dirs/boxes/results.json").read_text())
    assert "coco/bbox_mAP" in results["metrics"] and "coco/segm_mAP" not in results["metrics"]
    words = ["random:vit_tiny_patch16_224", "--yolo", "yolo/data.yaml", "--seeds", "0", "--out", "boxes"]
    assert outside.mst("evaluate", *words).count("the mask head is left out") == 1
    rows = json.loads((outside.folder / "boxes/card.json").read_text())["rows"]
    (row,) = (one for one in rows if one["protocol"] == "dense_knn")
    assert row["metric"] == "mIoU" and row["num_images"] == 4


def test_five_commands_from_shards_to_the_hub(outside: Outside, tmp_path: Path, monkeypatch) -> None:
    """Photos in shards are pre-trained on, evaluated and tracked; the backbone is pushed, and timm loads it by name."""
    pytest.importorskip("mlflow", reason="mlflow is not installed")
    outside.mst("sample-data", "data/world", "--num-train", "8", "--num-val", "8", "--num-photos", "24")
    labels = [f"data/world/coco/annotations/instances_{split}.json" for split in ("train", "val")]
    with fake_hub(tmp_path / "home", monkeypatch):
        names = ("HF_ENDPOINT", "HF_HOME", "HF_HUB_DISABLE_XET")
        outside.environment |= {name: os.environ[name] for name in names if name in os.environ} | {"HF_TOKEN": TOKEN}
        outside.mst("shard", "data/world/photos", "shards")
        outside.mst("pretrain", "shards", "--out", "mine", "--epochs", "1", "--track", "mlflow")
        words = ["mine=mine/teacher.safetensors", "random", "--coco", *labels, "--labels", "100%", "--seeds", "0", "1"]
        outside.mst("evaluate", *words, "--out", "card", "--track", "mlflow")
        outside.mst("push", "mine", "lab/mine", "--card", "card/card.json")
        code = "import timm; print(timm.create_model('hf-hub:lab/mine', pretrained=True, num_classes=0).num_features)"
        assert int(outside.run(code)) > 0
        card = json.loads((outside.folder / "card" / "card.json").read_text())
        assert any(row["checkpoint"] == "mine" for row in card["rows"])
        code = "from huggingface_hub import hf_hub_download as get; print(open(get('lab/mine', 'README.md')).read())"
        readme = outside.run(code)
        assert card["protocol_hash"][:12] in readme and "dense k-NN" in readme
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # to read it here
    for folder, metric in (("mine", "loss"), ("card", "mIoU")):
        _, runs = mlflow_runs(outside.folder / folder)
        assert any(metric in name for run in runs for name in run.data.metrics), folder
