"""Pre-trains on a folder of photos without a config: plans, writes the plan as ``plan.py``, trains with it."""

import difflib
import os
import statistics
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from pprint import pformat
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Any, NamedTuple

import torch
from mmengine.config import Config
from mmengine.hooks import Hook

from mst_transfer.checkpoint import architecture_of, find_backbone
from mst_transfer.checkpoint.metadata import skeleton
from mst_transfer.checkpoint.normalisation import normalisation_of
from mst_transfer.files.atomic_files import write_text_atomically
from mst_transfer.files.image_files import UnreadableImageError, declared_size
from mst_transfer.files.image_folder import find_images
from mst_transfer.runs import launch, work_dir
from pretrain.run import train
from pretrain.run.folder_recipe import Choices, Facts, Net, plan

FILE = "plan.py"
MODELS = {name: f"{name}_patch16_224" for name in ("vit_tiny", "vit_small", "vit_base")}
MODELS |= {name: f"{name}_patch4_window7_224" for name in ("swin_tiny", "swin_small")}
_BASES = [f"mst_transfer::pretrain/configs/_base_/{name}.py" for name in ("mst_vit", "runtime")]
_LOOKED_AT = 300  # photos
_WARM, _STEPS, _SECONDS = 3, 30, 15.0  # of a trial: steps that do not count, and steps and seconds that do


class Pretrained(NamedTuple):
    """The teacher's backbone file, for transfer, and the work dir."""

    checkpoint: Path
    work_dir: Path


def pretrain(
    photos: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    model: str | None = None,
    init: str | Path | None = None,
    minutes: float | None = None,
    epochs: int | None = None,
    seed: int = 0,
) -> Pretrained:
    """Pre-trains on photos in folders, as ``mst pretrain PHOTOS --out OUT`` does; the same again goes on.

    Args:
        photos: folders, with any folders in them.
        out: work dir.
        model: one of :data:`MODELS`; default: ViT-S where there is a GPU, else ViT-Ti.
        init: backbone file to go on from, instead of a ``model`` with random weights.
        minutes, epochs: length of the run, one of them at most; default: by the number of photos.
        seed: of every random draw.

    Raises:
        FileNotFoundError, ValueError: see :func:`prepare`.
        RuntimeError: the run has stopped; the reason stands on stderr.
    """
    folders = [photos] if isinstance(photos, str | Path) else photos
    wishes = dict(model=model, init=init and str(init), minutes=minutes, epochs=epochs, seed=seed, gpus=1)
    words = prepare([str(folder) for folder in folders], str(out), wishes)
    if status := train.main(words):
        raise RuntimeError(f"pre-training in {out} has ended with status {status}; the reason stands above")
    return Pretrained(Path(out) / "teacher.safetensors", Path(out))


def prepare(photos: Sequence[str], out: str, wishes: Mapping[str, Any], dry_run: bool = False) -> list[str]:
    """Prints the plan and writes it, unless ``out`` holds a run of the same wishes already.

    Returns:
        Words for ``mst-pretrain``.

    Raises:
        FileNotFoundError, ValueError: no photos, or too few; wishes that cannot be; or ``out`` holds another run.
        OSError: ``out`` cannot be written.
    """
    for one, other in (("minutes", "epochs"), ("model", "init")):
        if wishes[one] is not None and wishes[other] is not None:
            raise ValueError(f"--{one} and --{other} exclude each other. Next step: leave one out")
        if one == "minutes" and min(wishes[one] or 1, wishes[other] or 1) <= 0:
            raise ValueError(f"--minutes {wishes[one]}, --epochs {wishes[other]}: they must be positive")
    if wishes["model"] not in (None, *MODELS):
        near = difflib.get_close_matches(wishes["model"], MODELS, n=2) or MODELS
        raise ValueError(
            f"--model {wishes['model']} is not known. Nearest: {', '.join(near)}; others: mst pretrain CONFIG"
        )
    path, wishes = Path(out) / FILE, {"photos": [os.path.abspath(photo) for photo in photos], **wishes}
    planned = path.is_file() and _first_lines(wishes) in path.read_text(encoding="utf-8")
    held = work_dir.earlier_checkpoints(out, writes_backbones=True)
    if not planned and (held or path.is_file()) and not dry_run:
        raise ValueError(
            f"{out} holds another run: {(held or [FILE])[0]}. Next step: another --out, or that run's command"
        )
    if planned:
        print(f"{path} is the plan of this command: going on with it")
    else:
        if not dry_run:
            os.makedirs(out, exist_ok=True)
            TemporaryFile(dir=out).close()  # an OSError if it cannot be written
        text = _planned(wishes)
        if not dry_run:
            write_text_atomically(path, text)
    return [str(path), "--work-dir", out, "--gpus", str(wishes["gpus"]), *(["--resume"] if held else [])]


def _planned(wishes: Mapping[str, Any]) -> str:
    facts = look_at(wishes["photos"], wishes["gpus"])
    net = choose_net(wishes["model"], wishes["init"], facts)
    choices, seconds = plan(facts, net, wishes["epochs"]), 0.0
    print(f"{facts.num_images:,} photos, {facts.gpus} GPUs, {facts.cores} cores", flush=True)
    if wishes["minutes"] is not None:
        seconds = seconds_a_step(as_config(choices, wishes))
        print(f"{seconds:.3g} s a step")
        choices = plan(facts, net, possible_steps=int(wishes["minutes"] * 60 / seconds))
    print("\n".join(f"  {line}" for line in reasons(choices)), flush=True)
    return as_config(choices, wishes)


def look_at(photos: Sequence[str], processes: int) -> Facts:
    """Counts the photos, reads the headers of some, and asks the machine what it has."""
    paths, sides, gpus = find_images(photos), [], torch.cuda.device_count()
    for path in paths[:: -(-len(paths) // _LOOKED_AT)]:
        with suppress(UnreadableImageError, OSError), open(path, "rb") as file:
            sides.append(min(declared_size(file)))
    if not sides:
        raise ValueError(f"none of the photos that were looked at can be read, such as {paths[0]}")
    memory = 0.5 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / processes
    if gpus:
        memory = 0.7 * torch.cuda.get_device_properties(0).total_memory
    return Facts(len(paths), int(statistics.median(sides)), launch.num_cores(), gpus, processes, memory / 2**30)


def choose_net(model: str | None, init: str | None, facts: Facts) -> Net:
    """The backbone of a file, or of a name; ViT-S where there are GPUs, else ViT-Ti; finer patches for small photos."""
    start: dict[str, Any] = {}
    if init is None:
        name = model or ("vit_small" if facts.gpus else "vit_tiny")
        arch, options = MODELS[name], dict(patch_size=8) if facts.side < 96 and name.startswith("vit") else {}
    else:
        file = find_backbone(init, None)
        arch, options = architecture_of(file)
        options = {name: value for name, value in options.items() if name not in ("img_size", "drop_path_rate")}
        seen = normalisation_of(file.metadata, None)
        start = dict(init_from=init if "://" in init else os.path.abspath(init), mean=seen.mean, std=seen.std)
        if file.interpolation == "dino":
            start["backbone.pos_embed_interpolation"] = "dino"
    net = skeleton(arch, **options)
    millions = sum(parameter.numel() for parameter in net.parameters()) / 1e6
    return Net(arch, options, millions, 32 if arch.startswith("swin") else net.patch_embed.patch_size[0], start)


def reasons(choices: Choices) -> list[str]:
    """A line for each choice that has a reason of its own."""
    return [f"{name} = {value}: {why}" for name, value, why in choices if why]


def _first_lines(wishes: Mapping[str, Any]) -> str:
    return f'"""Planned by mst pretrain, for these wishes:\n\n{dict(wishes)!r}\n"""\n'


def as_config(choices: Choices, wishes: Mapping[str, Any]) -> str:
    """The text of a config file, with the reasons as comments."""
    cfg = Config()
    cfg.merge_from_dict({name: value for name, value, _ in choices})
    cfg.merge_from_dict({"train_dataloader.dataset.data_root": wishes["photos"], "randomness.seed": wishes["seed"]})
    lines = [_first_lines(wishes), f"_base_ = {_BASES!r}", *(f"# {line}" for line in reasons(choices))]
    lines += [f"{name} = {pformat(value, width=110, sort_dicts=False)}" for name, value in cfg.to_dict().items()]
    return "\n".join(lines) + "\n"


class _MeasuredError(Exception):
    """Ends a trial."""


class _Clock(Hook):
    def __init__(self) -> None:
        self.ends: list[float] = []

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        self.ends.append(time.perf_counter())
        counted = len(self.ends) - _WARM
        if counted >= _STEPS or (counted > 1 and self.ends[-1] - self.ends[_WARM - 1] > _SECONDS):
            raise _MeasuredError


def seconds_a_step(text: str) -> float:
    """Trains by a config for some steps, in a folder that is removed afterwards."""
    clock = _Clock()
    with TemporaryDirectory() as folder:
        path = Path(folder) / FILE
        path.write_text(text, encoding="utf-8")
        cfg = train.load_config(train.build_parser().parse_args([str(path), "--work-dir", folder]))
        cfg.update(log_level="ERROR", custom_hooks=[], default_hooks=dict(logger=None, checkpoint=None))
        cfg.train_cfg.max_epochs = 10**6
        try:
            runner = train.build_runner(cfg, "none")
            runner.register_hook(clock)
            runner.train()
        except _MeasuredError:
            return (clock.ends[-1] - clock.ends[_WARM - 1]) / (len(clock.ends) - _WARM)
        finally:
            work_dir.release(folder)
    raise AssertionError("a million epochs are over")
