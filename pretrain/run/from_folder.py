"""Pre-trains on a folder of photos without a config: plans, writes the plan as ``plan.py``, trains with it."""

import difflib
import io
import os
import statistics
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from pprint import pformat
from tempfile import TemporaryDirectory
from typing import Any

import torch
from mmengine.config import Config
from mmengine.hooks import Hook

from mst_transfer import Trained
from mst_transfer.checkpoint import architecture_of, find_backbone
from mst_transfer.checkpoint.metadata import skeleton
from mst_transfer.checkpoint.normalisation import normalisation_of
from mst_transfer.configs.shipped import shipped_config
from mst_transfer.files.atomic_files import write_text_atomically
from mst_transfer.files.image_files import UnreadableImageError, declared_size
from mst_transfer.files.photos import Photos
from mst_transfer.files.shard_cache import CACHE_GB
from mst_transfer.runs import launch, processes, work_dir
from mst_transfer.runs.trackers import check_trackers
from pretrain.run import train
from pretrain.run.folder_recipe import Choices, Facts, Net, plan
from pretrain.run.hooks import TrainingStoppedError

FILE = "plan.py"
MODELS = {name: f"{name}_patch16_224" for name in ("vit_tiny", "vit_small", "vit_base")}
MODELS |= {name: f"{name}_patch4_window7_224" for name in ("swin_tiny", "swin_small")}
_BASES = [f"pretrain/configs/_base_/{name}.py" for name in ("mst_vit", "runtime")]
_LOOKED_AT = 300  # photos
_WARM, _STEPS, _SECONDS = 3, 30, 15.0  # of a trial: steps that do not count, and steps or seconds that do


def pretrain(
    photos: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    model: str | None = None,
    init: str | Path | None = None,
    minutes: float | None = None,
    epochs: int | None = None,
    seed: int = 0,
    track: Sequence[str] = (),
    cache_gb: float = CACHE_GB,
) -> Trained:
    """Pre-trains as ``mst pretrain PHOTOS --out OUT`` does; the same again goes on.

    Args:
        photos: one folder or several, with any folders in them; or shards (``mst shard``), or their address.
        out: work dir.
        model: one of ``MODELS``; default: ViT-S where there is a GPU, else ViT-Ti.
        init: backbone file to go on from, instead of a ``model`` with random weights.
        minutes: length of the run; not with ``epochs``.
        epochs: likewise; default of both: by the number of photos.
        seed: of every random draw.
        track: trackers: ``tensorboard``, ``mlflow``, ``wandb``.
        cache_gb: size of the cache of shards that have an address.

    Returns:
        With the teacher's backbone as checkpoint.

    Raises:
        FileNotFoundError, ValueError, OSError: see ``settle`` and ``prepare``.
        RuntimeError: the run has stopped; the reason stands on stderr.
    """
    folders = [photos] if isinstance(photos, str | Path) else photos
    init = None if init is None else str(init)
    options = dict(model=model, init=init, minutes=minutes, epochs=epochs, seed=seed, cache_gb=cache_gb)
    wishes = settle([*map(str, folders)], gpus=1, **options)
    if status := train.main(prepare(str(out), wishes, track)):
        raise RuntimeError(f"pre-training in {out} has ended with status {status}; the reason stands above")
    return Trained(Path(out) / "teacher.safetensors", Path(out), {})


def settle(photos: Sequence[str], **wishes: Any) -> dict[str, Any]:
    """Checks what ``pretrain`` and ``mst pretrain`` are asked for; ValueError: it cannot be."""
    for one, other in (("minutes", "epochs"), ("model", "init")):
        if wishes[one] is not None and wishes[other] is not None:
            raise ValueError(f"--{one} and --{other} exclude each other. Next step: leave one out")
    for name in ("minutes", "epochs"):
        if wishes[name] is not None and wishes[name] <= 0:
            raise ValueError(f"--{name} {wishes[name]} must be positive")
    if wishes["model"] not in (None, *MODELS):
        near = difflib.get_close_matches(wishes["model"], MODELS, n=2) or MODELS
        raise ValueError(f"--model {wishes['model']}: nearest are {', '.join(near)}; for any other mst pretrain CONFIG")
    processes.visible_gpus(wishes["gpus"])
    return {"photos": [photo if "://" in photo else os.path.abspath(photo) for photo in photos], **wishes}


def prepare(out: str, wishes: Mapping[str, Any], track: Sequence[str] = ()) -> list[str]:
    """Plans, prints and writes, unless ``out`` holds a run of the same wishes already; the words for ``mst-pretrain``.

    Raises:
        FileNotFoundError, ValueError: no photos, or too few; no such backbone file; or ``out`` holds another run.
        OSError: ``out`` cannot be written.
    """
    check_trackers(track)
    path = Path(out) / FILE
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    held = work_dir.earlier_checkpoints(out, writes_backbones=True)
    if text.startswith(_head(wishes)):
        print(f"{path} is the plan of this command: going on with it")
    elif text or held:
        what = text.splitlines()[2:3] or held
        raise ValueError(f"{out} holds another run: {what[0]}. Next step: that run's command, or another --out")
    else:
        write_text_atomically(path, planned(wishes, path))
    words = [str(path), "--work-dir", out, "--gpus", str(wishes["gpus"]), *(["--resume"] if held else [])]
    return words + [word for name in track for word in ("--track", name)]


def planned(wishes: Mapping[str, Any], path: Path | None = None) -> str:
    """Plans, prints, and gives the text of a config file; before a trial it tries whether ``path`` can be written."""
    photos = Photos(wishes["photos"], cache_gb=wishes["cache_gb"])
    facts = look_at(photos, wishes["gpus"])
    net = choose_net(wishes["model"], wishes["init"], facts)
    choices, speed = plan(facts, net, wishes["epochs"]), ""
    cached = [("train_dataloader.dataset.cache_gb", wishes["cache_gb"], "")]
    if photos.shards_in_cache is not None:
        why = f"half of what a cache of {wishes['cache_gb']:g} GB holds"
        cached.append(("train_dataloader.dataset.shards_at_once", photos.shards_in_cache // 2, why))
    choices += cached
    if wishes["minutes"] is not None:
        if path is not None:
            write_text_atomically(path, "")
        if facts.processes > 1 and not facts.gpus:
            torch.set_num_threads(max(1, facts.cores // facts.processes))  # as each of them will have
        print("measuring the time of a step ...", flush=True)
        seconds = seconds_a_step(_as_config(choices, wishes))
        choices = plan(facts, net, None, int(wishes["minutes"] * 60 / seconds)) + cached
        speed = f", {seconds:.2g} s a step"
    print(f"plan for {facts.num_images:,} photos on {facts.cores} cores, {facts.gpus} GPUs{speed}:")
    print("\n".join(f"  {line}" for line in _reasons(choices)), flush=True)
    return _as_config(choices, wishes)


def look_at(photos: Photos, num_processes: int) -> Facts:
    """Counts the photos, reads the headers of some, and asks the machine what it has."""
    sides, gpus = [], processes.visible_gpus(num_processes)
    far = 1 if photos.is_cached else -(-len(photos) // _LOOKED_AT)  # a shard or two instead of all
    for number in range(0, min(len(photos), far * _LOOKED_AT), far):
        with suppress(UnreadableImageError, OSError):
            sides.append(min(declared_size(io.BytesIO(photos.read(number)))))
    if not sides:
        raise ValueError(f"none of the photos that were looked at can be read, such as {photos[0]}")
    memory = 0.7 * torch.cuda.get_device_properties(0).total_memory / 2**30 if gpus else 4.0
    return Facts(len(photos), int(statistics.median(sides)), launch.num_cores(), gpus, num_processes, memory)


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
        start = dict(init_from=file.source if "://" in init else os.path.abspath(init), mean=seen.mean, std=seen.std)
        if file.interpolation == "dino":
            start["backbone.pos_embed_interpolation"] = "dino"
    net = skeleton(arch, **options)
    millions = sum(parameter.numel() for parameter in net.parameters()) / 1e6
    return Net(arch, options, millions, 32 if arch.startswith("swin") else net.patch_embed.patch_size[0], start)


def _reasons(choices: Choices) -> list[str]:
    return [f"{name} = {value}: {why}" for name, value, why in choices if why]


def _head(wishes: Mapping[str, Any]) -> str:
    return f'"""Planned by mst pretrain for\n\n{dict(wishes)!r}\n"""\n'


def _as_config(choices: Choices, wishes: Mapping[str, Any]) -> str:
    cfg = Config()
    for base in _BASES:
        cfg.merge_from_dict(Config.fromfile(str(shipped_config(base))).to_dict())
    cfg.merge_from_dict({name: value for name, value, _ in choices})
    cfg.merge_from_dict({"train_dataloader.dataset.data_root": wishes["photos"], "randomness.seed": wishes["seed"]})
    lines = [_head(wishes), *(f"# {line}" for line in _reasons(choices))]
    lines += [f"{name} = {pformat(value, width=110, sort_dicts=False)}" for name, value in cfg.to_dict().items()]
    return "\n".join(lines) + "\n"


class _Clock(Hook):
    def __init__(self) -> None:
        self.ends: list[float] = []

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        self.ends.append(time.perf_counter())
        counted = len(self.ends) - _WARM
        if counted >= _STEPS or (counted > 1 and self.ends[-1] - self.ends[_WARM - 1] > _SECONDS):
            raise TrainingStoppedError


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
            with suppress(TrainingStoppedError):
                runner.train()
        finally:
            work_dir.release(folder)
    return (clock.ends[-1] - clock.ends[_WARM - 1]) / (len(clock.ends) - _WARM)
