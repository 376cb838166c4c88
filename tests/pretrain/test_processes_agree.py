"""Pre-training and its evaluations: any split of one global batch over processes gives one result."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from agreeing_runs import BROKEN_SAMPLE_POSITION, BROKEN_STEP, evaluate, pretrain, swin_step
from process_groups import run_group

from pretrain.data.sampler import EpochSampler

without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="about processes on the CPU; there is a GPU here")
pytestmark = [pytest.mark.slow, without_gpu]
LOGGED = ("loss", "loss_dino", "loss_restoring", "teacher_entropy", "mask_ratio", "grad_norm", "knn_top1", "lr",
          "teacher_momentum", "weight_decay", "teacher_temp")  # fmt: skip
NUM_STEPS = 6


@pytest.fixture(scope="module")
def class_folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of little pictures; 11 to train and 7 to validate on, which no number of processes divides."""
    root, random = tmp_path_factory.mktemp("classes"), np.random.default_rng(1)
    for split, counts in dict(train=(5, 3, 3), val=(3, 2, 2)).items():
        for label, count in enumerate(counts):
            folder = root / split / f"class_{label}"
            folder.mkdir(parents=True)
            for index in range(count):
                blocks = random.integers(0, 256, (6, 6, 3)) // 2 + np.eye(3)[label] * 127
                picture = cv2.resize(blocks.astype(np.uint8), (48, 48), interpolation=cv2.INTER_CUBIC)
                cv2.imwrite(str(folder / f"{index}.png"), picture)
    return root


@pytest.fixture
def train(sgd_config: Path, class_folders: Path, tmp_path: Path):
    """Runs a split of a batch of eight, with k-NN and one broken step; what its processes saw and ended with."""
    roots = {f"{split}_root": str(class_folders / split) for split in ("train", "val")}
    hook = dict(type="pretrain.KNNHook", interval=1, k=3, batch_size=4, num_workers=0, size=32, **roots)
    with sgd_config.open("a") as file:
        file.write(f"custom_hooks = [{hook!r}]\n")
    order = list(EpochSampler(range(24), 8, 1, 0))
    broken = order[BROKEN_STEP * 8 + BROKEN_SAMPLE_POSITION][1]
    (sgd_config.parent / "broken.json").write_text(json.dumps(broken))

    def run(processes: int, batch: int, accumulation: int, *options: str) -> list[dict]:
        name = "x".join(map(str, (processes, batch, accumulation))) + f"_{len(options)}"
        out = tmp_path / name / "work"
        words = [
            f"train_dataloader.batch_size={batch}",
            f"train_cfg.accumulation_steps={accumulation}",
            "model.backbone.drop_path_rate=0",
            *options,
        ]
        launcher = "none" if processes == 1 else "pytorch"
        return run_group(pretrain, processes, tmp_path / name / "group", str(sgd_config), str(out), words, launcher)

    return run


def assert_same(ones: list[dict], others: list[dict]) -> None:
    """Samples, masks, logs and the model, of every process."""
    one = ones[0]
    masks = {name: mask for part in ones for name, mask in part["masks"].items()}
    theirs = {name: mask for part in others for name, mask in part["masks"].items()}
    assert masks.keys() == theirs.keys() and sum(len(part["masks"]) for part in others) == len(masks)
    assert len(masks) == NUM_STEPS * 8 * 2
    assert all(torch.equal(theirs[name], mask) for name, mask in masks.items())
    for other in others:
        for name in LOGGED:
            if f"train/{name}" not in one["history"]:
                assert name == "loss_restoring" and f"train/{name}" not in other["history"]
                continue
            first, second = (torch.tensor(run["history"][f"train/{name}"]) for run in (one, other))
            torch.testing.assert_close(second, first, rtol=1e-4, atol=1e-5, equal_nan=True, msg=name)
        assert other["history"]["train/knn_top1"] == one["history"]["train/knn_top1"]
        assert other["state"].keys() == one["state"].keys()
        for name, tensor in one["state"].items():
            assert torch.equal(other["state"][name], others[0]["state"][name]), f"processes end apart: {name}"
            torch.testing.assert_close(other["state"][name], tensor, rtol=1e-4, atol=2e-6, msg=name)


def test_every_split_of_a_batch_is_the_same_run(train) -> None:
    """1 × 8, 2 × 4 and 4 × 2, with BatchNorm over all of them and a step that one sample spoils."""
    one = train(1, 8, 1)
    (history,) = (part["history"] for part in one)
    assert len(history["train/knn_top1"]) == 3 and len(history["train/loss"]) == NUM_STEPS - 1
    assert np.isfinite(history["train/loss"]).all() and list(history["train/left_out_steps"]) == [1]
    assert one[0]["records"] == 1
    state = one[0]["state"]
    assert state["dino_loss.center"].abs().max() > 1e-3
    tracked = [tensor for name, tensor in state.items() if name.endswith("num_batches_tracked")]
    assert tracked and all(int(count) == NUM_STEPS - 1 for count in tracked)  # the broken step's were put back
    for processes, batch in ((2, 4), (4, 2)):
        others = train(processes, batch, 1)
        assert [part["records"] for part in others] == [1] * processes
        assert_same(one, others)
    assert_same(train(1, 8, 1, "model.head.use_bn=True"), train(2, 4, 1, "model.head.use_bn=True"))


def test_accumulation_is_one_batch_too(train) -> None:
    """2 × 2 × 2 is 1 × 8 without BatchNorm; with it, what BatchNorm sees at a time decides: it is 1 × 4 × 2."""
    assert_same(train(1, 8, 1, "model.decoder=None"), train(2, 2, 2, "model.decoder=None"))
    one = train(1, 4, 2)
    assert_same(one, train(2, 2, 2))


def test_evaluations_count_every_image_once(tiny_mst, save_teacher, class_folders: Path, tmp_path: Path) -> None:
    """k-NN and both linear protocols on 1, 2, 3 and 6 processes, some of them without an image in the last step."""
    common = [str(save_teacher(tiny_mst())), str(class_folders), "--size", "32"]
    linear = [*common, "--blocks", "2", "--epochs", "4", "--lr", "0.3", "3.0", "--held-out", "0.2"]
    groups = []
    for processes, batch in ((1, 6), (2, 3), (3, 2), (6, 1)):
        runs = [
            ("eval_knn", [*common, "--batch-size", "2", "--k", "1", "3", "5"]),
            ("eval_linear", [*linear, "--cache", "--batch-size", "6"]),
            ("eval_linear", [*linear, "--batch-size", str(batch)]),
        ]
        launcher = "none" if processes == 1 else "pytorch"
        groups.append(run_group(evaluate, processes, tmp_path / f"{processes}", runs, launcher))
    (one,), *others = groups
    for other in (member for group in others for member in group):
        assert other["results"] == one["results"]
        torch.testing.assert_close(other["weights"], one["weights"], rtol=1e-5, atol=1e-6)


def test_a_swin_step_over_processes_equals_one_batch(tmp_path: Path) -> None:
    """Every parameter of the student gets a gradient, and the mean over processes is that of the whole batch."""
    losses, gradients, center = swin_step(processes=1)
    parts = run_group(swin_step, 2, tmp_path / "group", 2)
    for name in ("loss", "loss_dino", "loss_restoring", "teacher_entropy", "mask_ratio"):
        mean = (parts[0][0][name] + parts[1][0][name]) / 2
        torch.testing.assert_close(mean, losses[name], rtol=1e-4, atol=1e-5, msg=name)
    for part in parts:
        torch.testing.assert_close(part[2], center)
        assert part[1].keys() == gradients.keys()
        for name, gradient in gradients.items():
            assert gradient is not None and gradient.abs().max() > 0, name
            torch.testing.assert_close(part[1][name], gradient, rtol=1e-3, atol=1e-5, msg=name)
