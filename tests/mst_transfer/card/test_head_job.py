"""Heads as jobs: the learning rate that is chosen, what is kept of each image, what is refused."""

import json
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
from mmengine.config import Config
from small_cards import DET, SEG

from mst_transfer.card.head_job import _choose, _config, _learned, _validate_once, use_backbone
from mst_transfer.card.measures import digest_of, mean_ap
from mst_transfer.card.plan import Job, job_folder, read_plan
from mst_transfer.card.run_jobs import run_job
from mst_transfer.card.tasks import Recipe
from mst_transfer.cli.evaluate import main
from mst_transfer.probes.labelled_images import label_subset


def test_images_and_classes_that_a_config_leaves_out_are_no_misses():
    square = dict(category_id=1, iscrowd=0, area=100, segmentation=[[0, 0, 10, 0, 10, 10, 0, 10]], bbox=[0, 0, 10, 10])
    truth = dict(
        images=[dict(id=key, width=20, height=20) for key in (7, 8, 9)],
        categories=[dict(id=1, name="square"), dict(id=2, name="other")],
        annotations=[dict(square, id=key, image_id=key) for key in (7, 8, 9)],
    )
    truth["annotations"] += [dict(square, id=10 + key, image_id=key, category_id=2) for key in (7, 8, 9)]
    found = [dict(image_id=key, category_id=1, score=0.9, bbox=[0, 0, 10, 10]) for key in (7, 9)]
    measure = mean_ap(_learned(truth, [9, 7], ["square"]), found, "bbox")
    assert measure.num_images == 2 and measure.figures(np.ones((1, 2), int))[0] == pytest.approx(100)
    assert measure.digest == digest_of([9, 7])


@pytest.mark.parametrize(("arch", "kept"), [("vit_tiny_patch16_224", 96), ("swin_tiny_patch4_window7_224", 224)])
def test_every_checkpoint_gets_the_recipes_grid_of_positions(arch, kept):
    """A ViT's is resampled once; a Swin has windows, which follow its own size."""
    backbone = dict(type="mst_transfer.TimmViT", arch="vit_tiny_patch16_224", img_size=96, depth=2)
    cfg = Config(dict(model=dict(backbone=backbone, data_preprocessor=dict()), default_scope="mmseg"))
    options = dict(arch_kwargs=dict(img_size=224, drop_path_rate=0.1), mean=[0.5] * 3, std=[0.5] * 3)
    checkpoint = SimpleNamespace(arch=arch, is_random=True, path="random", **options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mst_transfer.card.head_job.fit_to_backbone", lambda cfg, options: None)
        use_backbone(cfg, checkpoint)
    assert cfg.model.backbone.img_size == kept and "depth" not in cfg.model.backbone


@pytest.mark.parametrize(
    ("extra", "validated"),
    [
        (dict(), 12),
        (dict(custom_hooks=[dict(type="EMAHook"), dict(type="mmengine.EarlyStoppingHook", monitor="mIoU")]), 2),
        (dict(param_scheduler=dict(type="ReduceOnPlateauLR", monitor="mIoU")), 2),
    ],
)
def test_a_head_is_validated_once_unless_validations_steer_it(extra, validated):
    cfg = Config(dict(train_cfg=dict(max_epochs=12, val_interval=2, dynamic_intervals=[(8, 1)]), **extra))
    _validate_once(cfg)
    assert cfg.train_cfg.val_interval == validated
    assert ("dynamic_intervals" in cfg.train_cfg) == (validated == 2)


@pytest.mark.parametrize(("figures", "best"), [({0.3: 0.0, 1: 0.0, 3: 0.0}, 1), ({0.3: 0.1, 1: 0.0, 3: 0.1}, 3)])
def test_of_equally_good_learning_rates_the_recipes_or_the_nearest_is_taken(figures, best, tmp_path, monkeypatch):
    found = iter(figures.values())
    monkeypatch.setattr("mst_transfer.card.head_job._config", lambda *args: None)
    monkeypatch.setattr("mst_transfer.card.head_job._train", lambda cfg: {"coco/segm_mAP": next(found)})
    job = Job("x", "a", "t", [0], ["100%"], "r", "c")
    plan = SimpleNamespace(options=SimpleNamespace(factors=list(figures)))
    assert _choose(plan, job, SimpleNamespace(train=[0] * 10), tmp_path) == best


@pytest.mark.parametrize("share", ["40%", "70%", "100%", "3"])
def test_a_detector_sees_as_many_images_an_epoch_whatever_its_labels(share, tmp_path, monkeypatch):
    """Ten images an epoch, each as often as the others or once more."""
    leaf = dict(type="Leaf")
    cfg = Config(dict(model=dict(), optim_wrapper=dict(optimizer=dict(lr=1.0)), train_cfg=dict(max_epochs=1)))
    cfg.train_dataloader = dict(dataset=leaf)
    monkeypatch.setattr("mst_transfer.card.head_job.load_task_config", lambda *args, **options: cfg)
    monkeypatch.setattr("mst_transfer.card.head_job.use_backbone", lambda cfg, checkpoint: None)
    monkeypatch.setattr("mst_transfer.card.head_job.only_indices", lambda whole, kept, cfg: dict(indices=list(kept)))
    task = SimpleNamespace(recipes=[Recipe("r", "r.py")])
    plan = SimpleNamespace(task=lambda name: task, checkpoint=lambda name: None)
    kept = label_subset(10, share, 0).tolist()
    job = Job("x", "a", "t", [0], [share], "r", "c")
    dataset = _config(plan, job, SimpleNamespace(train=[0] * 10), kept, 1.0, tmp_path).train_dataloader.dataset
    seen = Counter()
    for part in dataset.get("datasets", [dataset]):
        seen += Counter((part.get("dataset") or part)["indices"] * part.get("times", 1))
    assert seen.total() == 10 and set(seen) == set(kept) and max(seen.values()) - min(seen.values()) <= 1


def test_a_detector_without_masks_rests_on_boxes(world, tmp_path, capsys):
    config = tmp_path / "boxes.py"
    config.write_text(DET + "val_evaluator = dict(metric='bbox')\n")
    words = [str(world / "a.safetensors"), "--det-config", str(config), "--no-probes", "--tune"]
    assert main([*words, "--labels", "3", "--out", str(tmp_path), "--dry-run"]) == 0
    assert "primary: box mAP" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["seg", "det"])
def test_heads_choose_a_learning_rate_and_leave_outcomes_by_image(kind, world, tmp_path):
    config = tmp_path / f"mst_tiny_{kind}.py"
    config.write_text(dict(seg=SEG, det=DET)[kind])
    names = ["a", "random"] if kind == "seg" else ["a"]  # a detector takes the longer
    words = [str(world / "a.safetensors"), *names[1:], f"--{kind}-config", str(config)]
    words += ["--labels", "3", "--seeds", "3", "1", "--no-probes", "--tune", "--lr-factors", "0.5", "2"]
    words += ["--out", str(out := tmp_path / "card")]
    assert main([*words, "--print-jobs"]) == 0
    plan = read_plan(out)
    assert [(job.checkpoint, *job.seeds) for job in plan.jobs] == [(name, seed) for seed in (3, 1) for name in names]
    for job in plan.jobs:
        run_job(out, job.id)
    assert main(words) == 0
    card = json.loads((out / "card.json").read_text())
    metrics = {"mIoU"} if kind == "seg" else {"box mAP", "mask mAP"}
    assert {row["metric"] for row in card["rows"]} == metrics
    for row in card["rows"]:
        figure = dict(zip(row["seeds"], row["per_seed"], strict=True))
        for job in (job for job in plan.jobs if job.checkpoint == row["checkpoint"]):
            results = json.loads((job_folder(out, job) / "run" / "results.json").read_text())
            name = {"mIoU": "mIoU", "box mAP": "coco/bbox_mAP", "mask mAP": "coco/segm_mAP"}[row["metric"]]
            scale = 1 if kind == "seg" else 100
            assert figure[job.seeds[0]] == pytest.approx(scale * results["metrics"][name], abs=0.06)
            used = json.loads((job_folder(out, job) / "run" / "run_config.json").read_text())
            assert len(find(used["train_dataloader"]["dataset"], "indices")) == 3
    shown = [json.loads(path.read_text()) for path in out.glob("pictures/*-seed3-*/index.json")]
    assert len(shown) == len(names) and all(
        len(grid["cells"]) == 4 and "truth" in grid["cells"].popitem()[1] for grid in shown
    )
    choices = list(out.glob("jobs/choice-*/learning_rate.json"))
    assert len(choices) == len(names), "one choice for both seeds of a checkpoint"
    rates = set()
    for path in choices:
        tried = [json.loads(one.read_text()) for one in path.parent.glob("*/run_config.json")]
        assert len(tried) == 2
        for used in tried:
            kept = find(used["train_dataloader"]["dataset"], "indices")
            held_out = find(used["val_dataloader"]["dataset"], "indices")
            assert len(kept) == 2 and len(held_out) == 1
            assert sorted([*kept, *held_out]) == sorted(label_subset(6, "3", 0).tolist()), "of seed 0"
            rates.add(used["optim_wrapper"]["optimizer"]["lr"])
    assert max(rates) == pytest.approx(4 * min(rates))


def find(node, name):
    """The value of the first entry of a name in a nested config."""
    if isinstance(node, dict) and name in node:
        return node[name]
    children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    return next((found for child in children if (found := find(child, name)) is not None), None)
