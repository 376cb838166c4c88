"""Stages that pre-train as users do: where a step waits for the device; killed and resumed; under torchrun."""

import json
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.hooks import Hook
from torch.overrides import TorchFunctionMode

from benchmarks.gpu.device import Task, each
from benchmarks.gpu.transfer import PEERS, build_head, random_inputs, training_step
from benchmarks.measure import Row, alone, within

ROOT = Path(__file__).resolve().parents[2]
WAIT = "called a synchronizing CUDA operation"
OURS = ("pretrain.", "mst_transfer.")
LIBRARIES = ("mmdet.", "mmseg.", "mmcv.", "mmengine.", "timm.", "torchvision.")
HOST_READS = ("item", "tolist", "cpu", "numpy", "nonzero", "__bool__", "__float__", "__int__")
CONFIG = """
_base_ = ["mst_transfer::pretrain/configs/{base}.py"]
train_dataloader = dict(
    batch_size={batch}, num_workers={workers}, prefetch_factor=2, dataset=dict(data_root={folder!r} + "/photos")
)
optim_wrapper = dict(dtype={dtype!r})
train_cfg = dict(max_epochs={epochs}, schedule=dict(warmup_epochs=1))
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=1))
visualizer = dict(vis_backends=[dict(type="mmengine.LocalVisBackend")])
"""
EAGER = "model = dict(backbone=dict(compile_blocks=False))\n"
TRUE = dict(base="mst_vit_small_16_imagenet_100e", photos=2000, size=(375, 500), batch=64, workers=12, epochs=6)
TINY = dict(base="mst_vit_sample", photos=64, size=(64, 64), batch=16, workers=1, epochs=4)


def draw_photos(folder: Path, number: int, height: int, width: int) -> None:
    """JPEG files of smooth noise with grain; every hundredth shows the same."""
    random, known = np.random.default_rng(0), []
    for _ in range(min(number, 100)):
        smooth = cv2.resize(random.integers(0, 224, (12, 16, 3), dtype=np.uint8), (width, height))
        grain = random.integers(0, 32, (height, width, 3), dtype=np.uint8)
        known.append(cv2.imencode(".jpg", smooth + grain, [cv2.IMWRITE_JPEG_QUALITY, 90])[1])
    folder.mkdir()
    for index in range(number):
        known[index % len(known)].tofile(folder / f"{index:05d}.jpg")


def write_config(folder: Path, task: Task, dtype: str = "auto", compiled: bool = True, **changes: Any) -> Path:
    """A config of a short pre-training, with its photos beside it; ``compiled``: as the recipe has it."""
    work: dict[str, Any] = (TINY if task.tiny else TRUE) | changes
    draw_photos(folder / "photos", work["photos"], *work["size"])
    text = CONFIG.format_map(work | {"folder": str(folder), "dtype": dtype}) + (EAGER if not compiled else "")
    (folder / "acceptance.py").write_text(text, encoding="utf-8")
    return folder / "acceptance.py"


def run_in_process(config: Path, hook: Hook) -> None:
    """Pre-trains here, with one more hook."""
    from pretrain.run.train import build_parser, build_runner, load_config

    args = build_parser().parse_args([str(config), "--work-dir", str(config.parent / "work")])
    runner = build_runner(load_config(args), "none")
    runner.register_hook(hook, priority="VERY_HIGH")
    runner.train()


def place_of(frame: FrameType | None) -> str:
    """File and line of what is being executed: innermost of our packages, and of the libraries that these call."""
    library = ""
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        place = f"{module.replace('.', '/')}.py:{frame.f_lineno}"
        if module.startswith(OURS):
            return f"{place} ({library})" if library else place
        if not library and module.startswith(LIBRARIES):
            library = place
        frame = frame.f_back
    return library or "elsewhere"


class HostReads(TorchFunctionMode):
    """Warns on the CPU as CUDA does where values of a tensor are asked for: a rehearsal."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in HOST_READS:
            warnings.warn(WAIT, stacklevel=2)
        return func(*args, **(kwargs or {}))


@contextmanager
def count_waits(device: str, places: Counter[str]) -> Iterator[None]:
    """Adds each wait for the device to the count of its place."""

    def note(message: Warning | str, *args: Any, **kwargs: Any) -> None:
        if WAIT in str(message):
            places[place_of(sys._getframe())] += 1

    with warnings.catch_warnings(), ExitStack() as stack:
        warnings.simplefilter("always")
        warnings.showwarning = note
        if device == "cpu":
            stack.enter_context(HostReads())
        else:
            torch.cuda.set_sync_debug_mode("warn")
            stack.callback(torch.cuda.set_sync_debug_mode, "default")
        yield


class WaitsHook(Hook):
    """Counts the waits of some steps, with everything that the loop does between them."""

    def __init__(self, device: str, first: int, steps: int) -> None:
        self.device, self.first, self.steps = device, first, steps
        self.places: Counter[str] = Counter()
        self.stack = ExitStack()

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Begins or ends."""
        if runner.iter == self.first:
            self.stack.enter_context(count_waits(self.device, self.places))
        if runner.iter == self.first + self.steps:
            self.stack.close()


def waits_row(work: str, places: Counter[str], steps: int) -> Row:
    """Waits a step; the note says where."""
    where = ", ".join(f"{place} × {count / steps:g}" for place, count in places.most_common(12))
    return alone(work, ("waits a step", [sum(places.values()) / steps]), unit="", note=where)


def pretraining_waits(task: Task) -> Iterator[Row]:
    """Waits of a pre-training step as the loop takes it."""
    steps = 2 if task.tiny else 10
    hook = WaitsHook(task.device, 3, steps)
    with tempfile.TemporaryDirectory() as folder:
        photos = 100 if task.tiny else 900
        run_in_process(write_config(Path(folder), task, photos=photos, epochs=2, compiled=False), hook)
    yield waits_row("pre-training step", hook.places, steps)


def head_waits(name: str, task: Task) -> Iterator[Row]:
    """Waits of loss and gradients of a head's net."""
    net, inputs, places = build_head(name, True, task), random_inputs(name, task.tiny), Counter[str]()
    training_step(net, inputs)
    with count_waits(task.device, places):
        training_step(net, inputs)
    yield waits_row(f"{name}, loss and gradients", places, 1)


def waits(task: Task) -> Iterator[Row]:
    """Waits of pre-training, and of heads."""
    yield from each({"pre-training": pretraining_waits(task), **{name: head_waits(name, task) for name in PEERS}})


def _start(command: list[str], log: Path) -> subprocess.Popen:
    with open(log, "ab") as output:
        return subprocess.Popen([sys.executable, "-m", *command], cwd=ROOT, stdout=output, stderr=output)


def _finish(process: subprocess.Popen, log: Path) -> None:
    if process.wait():
        raise RuntimeError(f"exit status {process.returncode}\n{log.read_text(errors='replace')[-2500:]}")


def logged(work_dir: Path) -> list[dict[str, Any]]:
    """What the newest run of a work dir has logged, a dict a step."""
    newest = max(work_dir.glob("*/vis_data/scalars.json"), key=lambda path: path.stat().st_mtime)
    return [json.loads(line) for line in newest.read_text(encoding="utf-8").splitlines()]


def pretraining(task: Task) -> Iterator[Row]:
    """Kills a pre-training on 2,000 photographs after its second epoch and resumes it."""
    with tempfile.TemporaryDirectory() as folder:
        config, work_dir, log = write_config(Path(folder), task), Path(folder) / "work", Path(folder) / "log"
        command = ["pretrain.run.train", str(config), "--work-dir", str(work_dir)]
        begun, first, last = time.monotonic(), _start(command, log), work_dir / "last_checkpoint"
        while first.poll() is None and not (last.is_file() and "epoch_2" in last.read_text(encoding="utf-8")):
            time.sleep(0.05)
        if first.poll() is not None:
            _finish(first, log)
            raise RuntimeError("the run ended before it could be killed")
        first.kill()
        first.wait()
        yield alone("pre-training up to its second checkpoint", ("seconds", [time.monotonic() - begun]))
        begun = time.monotonic()
        _finish(_start([*command, "--resume"], log), log)
        seconds, rows = time.monotonic() - begun, logged(work_dir)
    work: dict[str, Any] = TINY if task.tiny else TRUE
    expected = 2 * (work["photos"] // work["batch"]) + 1  # or later, if a later checkpoint was there
    yield within("the resumed run begins after the checkpoint", "step", -rows[0]["step"], -expected)
    yield alone("the resumed run", ("seconds", [seconds]), note=f"steps {rows[0]['step']} to {rows[-1]['step']}")
    figures = [row for row in rows if "data_share" in row]
    share = statistics.mean(row["data_share"] for row in figures)
    note = f"{statistics.median(row['images_per_s'] for row in figures):.0f} images/s, the loop's own figure"
    if task.goal(1.0):
        yield within("time spent waiting for data", "share", share, 0.05, note=note)
    else:
        yield alone("time spent waiting for data", ("share", [share]), unit="", note=note)


def torchrun(task: Task) -> Iterator[Row]:
    """A group of one process, started by torchrun."""
    with tempfile.TemporaryDirectory() as folder:
        photos = 32 if task.tiny else 512
        config, log = write_config(Path(folder), task, photos=photos, epochs=2, workers=1), Path(folder) / "log"
        command = ["torch.distributed.run", "--standalone", "--nproc-per-node", "1", "-m", "pretrain.run.train"]
        begun = time.monotonic()
        _finish(_start([*command, str(config), "--launcher", "pytorch", "--work-dir", f"{folder}/work"], log), log)
        seconds, rows = time.monotonic() - begun, logged(Path(folder) / "work")
    backend = "gloo" if task.device == "cpu" else "NCCL"
    note = f"{len(rows)} steps, loss {rows[-1]['loss']:.3g}"
    yield alone(f"pre-training of one process under torchrun, {backend}", ("seconds", [seconds]), note=note)
