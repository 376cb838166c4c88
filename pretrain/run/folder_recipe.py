"""Plans the pre-training of a folder of photos, from their number and size and the devices.

The rules pass near the recipes that were tried (ImageNet; 8,000 photos at batch 64 with 1,024 prototypes; 3,000 at 32
with 256) and are guesses in between. [ours]
"""

import math
from typing import Any, NamedTuple

Choices = list[tuple[str, Any, str]]  # entry of the config by its dotted name, value, why; empty: follows from others

MIN_IMAGES = 16
FEW = 20_000  # images: below, a teacher's outputs stay uniform at a temperature of 0.04
SHORT = 10_000  # steps; and the least of a run whose length nobody says
MIN_STEPS = 60
VIEWS = 2 * 224**2 + 8 * 96**2  # pixels of an image's views in DINO's recipe


class Facts(NamedTuple):
    """What there is to train with: GiB of memory are those of each process, ``side`` the median photo's shorter one."""

    num_images: int
    side: int
    cores: int = 1
    gpus: int = 0
    processes: int = 1
    memory: float = 4.0


class Net(NamedTuple):
    """A backbone: sides of views are multiples of ``cell`` px; ``init`` are entries of ``model`` for a file's weights."""

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

    Raises:
        ValueError: too few images, or too little time.
    """
    images, least = facts.num_images, max(MIN_IMAGES, 2 * facts.processes)
    if images < least:
        raise ValueError(f"{images} photos are too few: give at least {least}, and thousands to learn something")
    most, num_local, bytes_a_number = (224, 8, 2) if facts.gpus else (128, 4, 4)
    size = max(2 * net.cell, min(most, facts.side) // net.cell * net.cell)
    local = max(1, round(size * 3 / 7 / net.cell)) * net.cell
    share = power_of_two(power_of_two(min(1024, max(4, images**0.5))) / facts.processes)
    pixels = (2 * size**2 + num_local * local**2) / VIEWS
    fitting = facts.memory / (0.1 * bytes_a_number * (net.millions / 21.7) ** 0.6 * pixels)  # images
    micro, batch = min(share, power_of_two(fitting)), share * facts.processes
    used, epochs, why = _length(images, batch, epochs, possible_steps, bool(net.init))
    patches, large, data = (size // net.cell) ** 2, net.millions > 15, "train_dataloader.dataset."
    prototypes = max(64, power_of_two(min(65536, images / 8, 64 * batch)))
    steps, subset = used // batch, None if used == images else used
    drop_path = 0.1 if steps * epochs >= SHORT else 0.0
    parts = f"{facts.processes} process(es) x accumulation {share // micro} = {batch}"
    return [
        ("model.backbone", dict(net.options, arch=net.arch, img_size=size, drop_path_rate=drop_path), "--model"),
        *((f"model.{name}", value, "--init") for name, value in net.init.items()),
        (
            data + "global_size",
            size,
            f"photos are of {facts.side} px, and {most} are enough with{'out' * (most < 224)} GPUs",
        ),
        (data + "local_size", local, ""),
        (data + "num_local_crops", num_local, ""),
        (data + "local_scale", (0.05 if size > 160 else 0.1, 0.4), ""),
        (data + "reduced_decoding", facts.side >= 4 * size, ""),
        (data + "max_images", subset, "three epochs of more take longer" if subset else ""),
        ("train_dataloader.batch_size", micro, f"x {parts}, near the root of {images:,} photos; {fitting:.0f} fit"),
        ("train_dataloader.num_workers", max(1, min(16, facts.cores // facts.processes - 1)) if facts.gpus else 1, ""),
        ("train_cfg.accumulation_steps", share // micro, ""),
        ("model.head.out_dim", prototypes, "prototypes: an eighth of the photos and 64 times the batch at most"),
        ("model.head.hidden_dim", 2048 if large else 1024, ""),
        ("model.decoder.channels", (256, 128, 64, 32) if large else (64, 32, 16, 16), ""),
        ("model.masking.num", 8 if patches >= 49 else 2, f"1/num of {patches} patches are hidden"),
        ("train_cfg.max_epochs", epochs, f"of {steps} steps: {why}"),
        *_schedule(facts, net, batch, steps, epochs),
        ("default_hooks.logger.interval", max(1, min(50, steps * epochs // 20)), ""),
        ("default_hooks.checkpoint.interval", max(1, min(epochs // 5, 500 // steps)), ""),
    ]


def _length(images: int, batch: int, epochs: int | None, possible: int | None, goes_on: bool) -> tuple[int, int, str]:
    """Images that are used, epochs, and why."""
    steps = images // batch
    if possible is not None and possible < MIN_STEPS:
        raise ValueError(f"there is time for {possible} steps, too few by far: {MIN_STEPS} are the least of --minutes")
    if possible is not None and possible < 3 * steps:
        return possible // 3 * batch, 3, "as there is time for"
    if possible is not None:
        return images, possible // steps, "as there is time for"
    if epochs is not None:
        return images, epochs, "as asked for"
    least, total = (10, SHORT // 10) if goes_on else (100, SHORT)
    return images, max(least, math.ceil(total / steps)), f"{least} at least, and {total:,} steps; --minutes, --epochs"


def _schedule(facts: Facts, net: Net, batch: int, steps: int, epochs: int) -> Choices:
    """Options of :class:`pretrain.schedules.Schedule`."""
    goes_on, short, few = bool(net.init), steps * epochs < SHORT, facts.num_images < FEW
    peak = (1e-4 if goes_on else 5e-4 if net.millions > 15 else 1e-3) * (batch / 256) ** (1 if batch > 256 else 0.5)
    temp, warming = 0.02 if few else 0.04, 0 if few or goes_on or batch <= 256 else min(30, epochs * 3 // 10)
    values = {
        "base_lr": (float(f"{peak * 256 / batch:.3g}"), f"for 256: {peak:.2g} for {batch}, by the root below 256"),
        "warmup_epochs": (min(10, max(1, epochs // 10), epochs - 1), ""),
        "weight_decay_end": (0.1 if short else 0.4, ""),
        "teacher_momentum": (
            0.99 if short else 0.996,
            "the teacher follows quickly in a short run" if short else "as DINO",
        ),
        "warmup_teacher_temp": (temp, "few photos: a warmer teacher stays undecided" if few else ""),
        "teacher_temp": (0.07 if warming else temp, ""),
        "warmup_teacher_temp_epochs": (warming, ""),
        "freeze_last_layer_epochs": (int(epochs >= 5 and not goes_on), ""),
        "head_only_epochs": (
            min(1, epochs / 10) if goes_on else 0,
            "the head finds its place first" if goes_on else "",
        ),
    }
    return [(f"train_cfg.schedule.{name}", *value) for name, value in values.items()]
