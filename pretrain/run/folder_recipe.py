"""Plans the pre-training of a folder of photos, from their number and size and the devices.

The rules pass near the recipes that were tried (ImageNet; 8,000 photos at batch 64 with 1,024 prototypes; 3,000 at 32
with 256) and are guesses in between. [ours]
"""

import math
from typing import Any, NamedTuple

Choices = list[tuple[str, Any, str]]  # dotted name in the config, value, why; no reason: follows from the others
MIN_IMAGES, MIN_STEPS = 16, 60
FEW = 20_000  # photos: below, a teacher's outputs stay uniform at a temperature of 0.04
SHORT = 10_000  # steps; and the least of a run whose length nobody says
VIEWS = 2 * 224**2 + 8 * 96**2  # pixels of an image's views in DINO's recipe


class Facts(NamedTuple):
    """What there is to train with: ``side`` is the median photo's shorter one, ``memory`` the GiB of each process."""

    num_images: int
    side: int
    cores: int = 1
    gpus: int = 0
    processes: int = 1
    memory: float = 4.0


class Net(NamedTuple):
    """A backbone: sides of views are multiples of ``cell`` px; ``init`` are entries of ``model`` that name a file."""

    arch: str
    options: dict[str, Any]
    millions: float
    cell: int
    init: dict[str, Any] = {}


def power_of_two(value: float) -> int:
    """The largest one up to ``value``; at least 1."""
    return 2 ** int(math.log2(max(1.0, value)))


def plan(facts: Facts, net: Net, epochs: int | None = None, possible_steps: int | None = None) -> Choices:
    """Chooses what a run needs beyond ``_base_/mst_vit.py``, for so many epochs, or steps, or by rule.

    Too few images, or too little time, is a ValueError.
    """
    images, least, large = facts.num_images, max(MIN_IMAGES, 2 * facts.processes), net.millions > 15
    if images < least:
        raise ValueError(f"{images} photos are too few: give at least {least}, and thousands to learn something")
    most, num_local, doubled = (224, 8, 1) if facts.gpus else (128, 4, 2)
    size = max(2 * net.cell, min(most, facts.side) // net.cell * net.cell)
    local = max(1, round(size * 3 / 7 / net.cell)) * net.cell
    need = 0.2 * doubled * (net.millions / 21.7) ** 0.6 * (2 * size**2 + num_local * local**2) / VIEWS  # GiB an image
    share = power_of_two(power_of_two(min(1024, max(4, images**0.5))) / facts.processes)
    micro, batch = min(share, power_of_two(facts.memory / need)), share * facts.processes
    patches, prototypes = (size // net.cell) ** 2, max(64, power_of_two(min(65536, images / 8, 64 * batch)))
    used, epochs, length = _length(images, batch, epochs, possible_steps, bool(net.init))
    steps, num = used // batch, 8 if patches >= 49 else 2
    data = "train_dataloader.dataset"
    drop_path = 0.1 if steps * epochs >= SHORT else 0.0
    return [
        ("model.backbone", dict(net.options, arch=net.arch, img_size=size, drop_path_rate=drop_path), ""),
        *((f"model.{name}", value, "") for name, value in net.init.items()),
        ("model.backbone.arch", net.arch, f"{net.millions:.0f} million parameters, patches of {net.cell} px"),
        (
            f"{data}.global_size",
            size,
            f"photos are of {facts.side} px; {most} at most {'with' + 'out' * (most < 224)} GPUs",
        ),
        (f"{data}.local_size", local, ""),
        (f"{data}.num_local_crops", num_local, ""),
        (f"{data}.local_scale", (0.05 if size > 160 else 0.1, 0.4), ""),
        (f"{data}.reduced_decoding", facts.side >= 4 * size, ""),
        (f"{data}.max_images", None if used == images else used, "" if used == images else "no time for more"),
        ("train_dataloader.batch_size", micro, f"for {batch} a step, about the root of {images:,} photos"),
        ("train_cfg.accumulation_steps", share // micro, ""),
        ("train_dataloader.num_workers", max(1, min(16, facts.cores // facts.processes - 1)) if facts.gpus else 1, ""),
        ("optim_wrapper.dtype", "auto", "the quickest on this machine, measured at the start"),
        ("model.head.out_dim", prototypes, "prototypes, of 64 … 65,536: an eighth of the photos at most"),
        ("model.head.hidden_dim", 2048 if large else 1024, ""),
        ("model.decoder.channels", (256, 128, 64, 32) if large else (64, 32, 16, 16), ""),
        ("model.masking.num", num, f"hides the least attended 1/{num} of {patches} patches"),
        ("train_cfg.max_epochs", epochs, f"of {steps:,} steps: {length}"),
        *_schedule(facts, net, batch, steps, epochs),
        ("default_hooks.logger.interval", max(1, min(50, steps * epochs // 20)), ""),
        ("default_hooks.checkpoint.interval", max(1, min(epochs // 5, 500 // steps)), ""),
    ]


def _length(images: int, batch: int, epochs: int | None, possible: int | None, goes_on: bool) -> tuple[int, int, str]:
    """Images that are used, epochs, and why."""
    steps, (least, total) = images // batch, (10, SHORT // 10) if goes_on else (100, SHORT)
    if possible is None:
        rule = f"{least} epochs and {total:,} steps at least; --minutes or --epochs choose"
        return images, epochs or max(least, math.ceil(total / steps)), "as asked for" if epochs else rule
    if possible < MIN_STEPS:
        raise ValueError(f"there is time for {possible} steps, {MIN_STEPS} are the least: --minutes must be larger")
    return (images, possible // steps, "in time") if possible >= 3 * steps else (possible // 3 * batch, 3, "in time")


def _schedule(facts: Facts, net: Net, batch: int, steps: int, epochs: int) -> Choices:
    """Options of ``pretrain.schedules.Schedule``."""
    goes_on, short, few = bool(net.init), steps * epochs < SHORT, facts.num_images < FEW
    peak = (1e-4 if goes_on else 5e-4 if net.millions > 15 else 1e-3) * (batch / 256) ** (1 if batch > 256 else 0.5)
    temp, warming = 0.02 if few else 0.04, 0 if few or goes_on or batch <= 256 else min(30, epochs * 3 // 10)
    warmup = min(10, max(1, epochs // 10), epochs - 1)
    values = {
        "base_lr": (float(f"{peak * 256 / batch:.3g}"), f"quoted for a batch of 256; {peak:.2g} after the warm-up"),
        "warmup_epochs": (warmup, ""),
        "weight_decay_end": (0.1 if short else 0.4, ""),
        "teacher_momentum": (0.99 if short else 0.996, ""),
        "warmup_teacher_temp": (temp, ""),
        "teacher_temp": (
            0.07 if warming else temp,
            "few photos leave a warmer teacher undecided" if few else "by the batch",
        ),
        "warmup_teacher_temp_epochs": (warming, ""),
        "freeze_last_layer_epochs": (int(epochs >= 5 and not goes_on), ""),
        "head_only_epochs": (min(1, epochs / 10) if goes_on else 0, ""),
    }
    return [(f"train_cfg.schedule.{name}", *value) for name, value in values.items()]
