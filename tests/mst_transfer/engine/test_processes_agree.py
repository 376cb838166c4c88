"""Detection and segmentation: how a batch is split over processes changes neither training nor metrics."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from group_members import Job, run_jobs
from process_groups import run_group
from splittable_tasks import write_config, write_data

without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="about processes on the CPU; there is a GPU here")
pytestmark = [pytest.mark.slow, without_gpu]
SPLITS = {1: 6, 2: 3}  # processes: batch of each
NUM_TRAIN, NUM_STEPS = 12, 4
NAMES = ("vit", "sync", "fcos", "mask")
TESTED = ("sync", "mask")


@pytest.fixture(scope="module")
def groups(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """All trainings and tests of all splits: {processes: {job: one outcome a process}}."""
    root = tmp_path_factory.mktemp("agree")
    write_data(root / "data", NUM_TRAIN, 7)
    configs = {name: write_config(name, root, root / "data") for name in (*NAMES, "plain")}
    outcomes = {}
    for processes in SPLITS:
        jobs = dict(jobs_of(processes, root, configs))
        launcher = "none" if processes == 1 else "pytorch"
        members = run_group(run_jobs, processes, root / f"group_{processes}", list(jobs.values()), launcher)
        outcomes[processes] = {name: [member[n] for member in members] for n, name in enumerate(jobs)}
    return dict(outcomes=outcomes, root=root)


def jobs_of(processes: int, root: Path, configs: dict[str, Path]) -> Iterator[tuple[str, Job]]:
    """Trainings with a batch of six, and tests of what a single process trained."""

    def train(name: str, config: str, batch: int, *words: str) -> tuple[str, Job]:
        options = ["--cfg-options", f"train_dataloader.batch_size={batch}"]
        work_dir = str(root / f"{name}_{processes}")
        return name, ("train", [str(configs[config]), *words, *options, "--work-dir", work_dir])

    def test(config: str, trained: str) -> tuple[str, Job]:
        checkpoint, work_dir = root / trained / "epoch_2.pth", root / f"test_{config}_{processes}"
        return f"test_{config}", ("test", [str(configs[config]), str(checkpoint), "--work-dir", str(work_dir)])

    for name in NAMES:
        yield train(name, name, SPLITS[processes])
        if name in TESTED:
            yield test(name, f"{name}_1")
    if processes == 2:
        yield train("accumulated", "vit", 1, "--accumulate", "3")
        yield train("plain", "plain", 3)
        yield test("plain", "plain_2")


def steps_of(members: list[dict], key: str, per_step: int = 1) -> list[list]:
    """What all processes saw in each step, sorted."""
    iterations = zip(*(member[key] for member in members), strict=True)
    merged = [list(itertools.chain.from_iterable(parts)) for parts in iterations]
    return [sorted(itertools.chain.from_iterable(merged[at : at + per_step])) for at in range(0, len(merged), per_step)]


def assert_same_training(ones: list[dict], others: list[dict], accumulation: int = 1) -> None:
    """Images, augmented pixels, mean losses, weights and buffers."""
    for key in ("images", "pixels"):
        expected = steps_of(ones, key)
        assert len(expected) == NUM_STEPS and steps_of(others, key, accumulation) == expected
    for step, (one,) in enumerate(zip(*(member["losses"] for member in ones), strict=True)):
        iterations = range(step * accumulation, (step + 1) * accumulation)
        parts = [member["losses"][iteration]["loss"] for member in others for iteration in iterations]
        assert sum(parts) / len(parts) == pytest.approx(one["loss"], rel=1e-4)
    assert_same_state(ones[0], others)


def assert_same_state(one: dict, others: list[dict]) -> None:
    for other in others:
        assert other["state"].keys() == one["state"].keys()
        for name, tensor in one["state"].items():
            torch.testing.assert_close(other["state"][name], tensor, rtol=1e-4, atol=2e-5, msg=name)
            assert torch.equal(other["state"][name], others[0]["state"][name]), f"processes end apart: {name}"


@pytest.mark.parametrize("name", ["vit", "sync", "fcos"])
def test_training_is_the_same(groups: dict, name: str) -> None:
    outcomes = groups["outcomes"]
    assert_same_training(outcomes[1][name], outcomes[2][name])
    first, last = outcomes[1][name][0]["losses"][0]["loss"], outcomes[1][name][0]["losses"][-1]["loss"]
    assert abs(last - first) > 1e-2  # it moved


def test_accumulated_training_is_the_same(groups: dict) -> None:
    """2 processes × 1 image × 3 iterations."""
    assert_same_training(groups["outcomes"][1]["vit"], groups["outcomes"][2]["accumulated"], accumulation=3)


def test_sampled_boxes_differ_but_images_and_processes_do_not(groups: dict) -> None:
    """Mask R-CNN draws boxes for each process and divides by what each process drew."""
    ones, others = (groups["outcomes"][processes]["mask"] for processes in (1, 2))
    for key in ("images", "pixels"):
        assert steps_of(others, key) == steps_of(ones, key)
    assert_same_state(others[0], others)


@pytest.mark.parametrize("name", TESTED)
def test_metrics_are_the_same_to_the_last_digit(groups: dict, name: str) -> None:
    """Seven images on one and two processes; also right after training, for the process that trained alone."""
    outcomes = groups["outcomes"]
    metrics = [outcomes[processes][f"test_{name}"][0]["metrics"] for processes in SPLITS]
    assert metrics[1] == metrics[0]
    assert outcomes[1][name][0]["metrics"] == metrics[0]
    assert any(0 < value < 100 for value in metrics[0].values()), metrics[0]


def test_nothing_is_written_where_the_program_stands(groups: dict) -> None:
    """Results of several processes are brought together in the run's folder, and nothing of it stays."""
    root = groups["root"]
    for processes in SPLITS:
        assert not [path for path in (root / f"group_{processes}").iterdir() if not path.name.startswith("rank_")]
    assert not list(root.rglob("results_of_processes"))


def test_what_is_validated_is_what_is_saved(groups: dict) -> None:
    """Plain BatchNorm has other statistics in each process; the main one's are saved, and count everywhere."""
    outcomes = groups["outcomes"][2]
    assert any("running_var" in name for name in outcomes["plain"][0]["state"])
    assert_same_state(outcomes["plain"][0], outcomes["plain"])
    assert outcomes["plain"][0]["metrics"] == outcomes["test_plain"][0]["metrics"]
