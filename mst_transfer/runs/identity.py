"""Identifies the run of a checkpoint by model and training data of its config, written into each checkpoint.

A run that is resumed with another model or other data is another run. The names and values that differ are told.
What may change is left out: folders, since data get moved; where weights once began; learning rate and length, which
are the user's to change; how the same steps are computed with less memory or time.
"""

from collections.abc import Iterator, Mapping
from typing import Any

KEY = "run_identity"  # entry of the checkpoint's meta
SWITCH = "exact_resume"  # entry of a config; False: other values are a warning
# Names of entries that do not make another run
FREE = frozenset(
    {
        "init_cfg", "pretrained", "checkpoint", "init_from", "init_head", "test_cfg", "with_cp",
        "grad_checkpointing", "compile_blocks", "photometric",
        "data_root", "data_prefix", "img_dir", "ann_dir", "backend_args",
        "file_client_args", "cache_gb", "cache_dir", "lazy_init",
        "indices", "seed", "serialize_data", "palette", "num_workers",
    }
)  # fmt: skip
FILES = frozenset({"ann_file", "seg_map_path", "img_path"})  # known by their last part
BATCH_NORMS = frozenset({"SyncBN", "mmcv.SyncBN", "BN", "mst_transfer.GlooSyncBN"})  # by the number of devices


class OtherRunError(ValueError):
    """The checkpoint is of another run than the config's."""


def run_identity(cfg: Mapping[str, Any]) -> dict[str, str]:
    """Returns dotted name → value, for all entries of a config that make its run what it is."""
    dataset = (cfg.get("train_dataloader") or {}).get("dataset") or {}
    return dict(_flatten("model", cfg.get("model") or {})) | dict(_flatten("train_dataloader.dataset", dataset))


def _flatten(name: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            if key not in FREE:
                yield from _flatten(f"{name}.{key}", item)
    elif isinstance(value, list | tuple) and value:
        for index, item in enumerate(value):
            yield from _flatten(f"{name}.{index}", item)
    else:
        last = name.rsplit(".", 1)[-1]
        text = str(value)
        if last in FILES:
            text = text.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1]
        elif last == "type" and text in BATCH_NORMS:
            text = "BN"
        yield name, text


def differences(theirs: Mapping[str, str], ours: Mapping[str, str]) -> list[str]:
    """Lists one line for each name whose value is another."""
    older = {name for name in theirs if not FREE.isdisjoint(name.split("."))}  # what an older release compared
    none = "not set"
    return [
        f"{name}: {theirs.get(name, none)} in the checkpoint, {ours.get(name, none)} now"
        for name in sorted({*theirs, *ours} - older)
        if theirs.get(name) != ours.get(name)
    ]


def check_identity(meta: Mapping[str, Any], cfg: Mapping[str, Any], checkpoint: str) -> str | None:
    """Compares the run of a checkpoint, by its meta, with this run's config.

    Returns:
        A warning if they differ and the config says ``exact_resume=False``; None if there is nothing to say, as for a
        checkpoint of an older release, which does not name its run.

    Raises:
        OtherRunError: They differ.
    """
    theirs = meta.get(KEY)
    lines = differences(theirs, run_identity(cfg)) if isinstance(theirs, Mapping) else []
    if not lines:
        return None
    shown = "\n  ".join([*lines[:10], *([f"… and {len(lines) - 10} more"] if len(lines) > 10 else [])])
    text = f"the checkpoint {checkpoint} is of another run than this config's:\n  {shown}\n"
    if not cfg.get(SWITCH, True):
        return f"{text}going on all the same, since exact_resume=False"
    raise OtherRunError(
        f"{text}Next step: resume with the config that it was made with; or start anew in another --work-dir, with "
        "load_from for the weights; or, if you know that these belong together, --cfg-options +exact_resume=False"
    )
