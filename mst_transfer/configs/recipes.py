"""What the shipped configs of heads are, as they say themselves: backbone, head, data, schedule, rate."""

from collections.abc import Iterable
from pathlib import Path

from mst_transfer.configs.read import DETECTION, SEGMENTATION, config_kind
from mst_transfer.configs.saved import FILE, VARIABLE, ConfigRefusedError, data_only
from mst_transfer.configs.shipped import available_configs, shipped_config

COLUMNS = ("recipe", "head", "backbone", "data", "schedule", "batch", "rate")


def read_recipe(name: str) -> dict[str, str]:
    """The facts of a shipped config of a head: ``COLUMNS`` and more; nothing that it names is imported.

    Raises:
        ConfigRefusedError: only saved configs may be read.
    """
    if data_only():
        raise ConfigRefusedError(f"{name} is a program, and {VARIABLE}=1 allows the {FILE} of runs alone: unset it")
    from mmengine.config import Config

    path = shipped_config(name)
    cfg = Config.fromfile(path, use_environment_variables=False)
    lines = path.read_text(encoding="utf-8").splitlines()
    model, epochs, steps = cfg["model"], cfg["train_cfg"].get("max_epochs"), cfg["train_cfg"].get("max_iters")
    optimizer, backbone = cfg["optim_wrapper"]["optimizer"], model["backbone"]
    decay = (cfg["optim_wrapper"].get("paramwise_cfg") or {}).get("layer_decay_rate", 1.0)
    root = cfg["train_dataloader"]["dataset"]["data_root"].partition("}}/")[2].split("/")[0]
    head = model.get("decode_head") or model["neck"]
    kind = "linear" if head.get("num_convs") == 0 else head["type"].rpartition(".")[2]
    return dict(
        recipe=name,
        head=kind if "decode_head" in model else f"{model['type']}, {kind}",
        backbone=backbone["arch"] + ", frozen" * (backbone.get("frozen_stages") == "all"),
        data=dict(ade="ade20k").get(root, root),
        schedule=f"{epochs} epochs" if epochs else f"{steps:,} steps",
        batch=str(cfg["auto_scale_lr"]["base_batch_size"]),
        rate=f"{optimizer['type']} {optimizer['lr']:g}" + f", x {decay:g} a layer" * (decay < 1),
        task=str(config_kind(cfg)),
        image="×".join(map(str, model["data_preprocessor"].get("size") or ["several sizes"])),
        weights=backbone["checkpoint"] or "random",
        checkpoint=f"epoch_{epochs}.pth" if epochs else f"iter_{steps}.pth",
        about="\n".join(lines[: next(number for number, line in enumerate(lines) if not line.startswith("#"))]),
    )


def explain(name: str) -> str:
    """All facts of a recipe, and its commands."""
    facts = read_recipe(name)
    arch, weights = facts["backbone"].partition(",")[0], facts["weights"]
    own = "--coco TRAIN.json VAL.json" if facts["task"] == DETECTION else "--masks '{split}/images/{}.jpg' …"
    told = ("task", "head", "backbone", "weights", "data", "image", "schedule", "batch", "rate")
    lines = [
        facts["about"],
        "",
        *(f"{key:9} {facts[key]}" for key in told),
        "memory    mst train … --dry-run measures it",
    ]
    trained = f"work_dirs/{Path(name).stem}/{facts['checkpoint']}"
    lines += ["", f"mst check {name}", f"mst train {name} --accumulate auto", f"mst test {name} {trained}"]
    lines.append(f"your own data, of each: {own}")
    for size in ("base", "large") if weights.startswith(f"timm://{arch}.") and "_small_" in arch else ():
        words = f"--cfg-options model.backbone.arch={arch} model.backbone.checkpoint={weights}"
        lines.append(f"{size}: {words.replace('_small_', f'_{size}_')}")
    return "\n".join(lines)


def find_recipes(words: Iterable[str] = (), task: str = "", data: str = "", backbone: str = "") -> list[dict[str, str]]:
    """The recipes of a task (``det``, ``seg``), of data and backbones that hold a text, and that hold all words.

    Raises:
        ValueError: there is none; names what there is.
    """
    folders = tuple(f"{kind[:3]}_configs/" for kind in (DETECTION, SEGMENTATION) if kind.startswith(task))
    known = [read_recipe(name) for name in available_configs() if name.startswith(folders)]
    found = [one for one in known if data in one["data"] and backbone in one["backbone"]]
    found = [one for one in found if all(word.lower() in str(one).lower() for word in words)]
    if not found:
        sets, nets = (", ".join(sorted({one[key] for one in known})) for key in ("data", "backbone"))
        raise ValueError(
            f"no recipe of {len(known)} fits. Data are {sets}; backbones {nets}; others go into any recipe: "
            "--cfg-options model.backbone.arch=NAME"
        )
    return found
