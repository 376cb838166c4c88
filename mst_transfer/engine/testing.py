"""Tests detectors and segmentors: one checkpoint on a config's test set.

Averaging over sizes and mirror images follows ``tta_pipeline`` and ``tta_model`` of the config, as in mmseg, whose
``SegTTAModel`` averages the class probabilities.
"""

import copy
import time
from pathlib import Path
from typing import Any

from mst_transfer.engine.results import scalar_metrics, write_results
from mst_transfer.engine.run import RunRefusedError, build_runner, refusals
from mst_transfer.files.checksums import BrokenCheckpointError, verify_checkpoint
from mst_transfer.runs import launch
from mst_transfer.runs.checkpoints import existing_checkpoint


def run_testing(cfg: Any, checkpoint: str, augmented: bool = False) -> dict[str, Any]:
    """Evaluates a trained model on the config's test set and writes ``results.json``, whose content it returns.

    Args:
        cfg: From ``load_run_config``.
        checkpoint: It must hold every parameter of the model and no other.
        augmented: Average over sizes and mirror images: see ``with_augmentation``.

    Raises:
        FileNotFoundError: No such checkpoint.
        RunRefusedError: It does not fit the config's model or classes, or the model cannot be built.
        ValueError: ``augmented``, and the config does not say how.
    """
    start = time.time()
    checkpoint = existing_checkpoint(checkpoint)
    if Path(checkpoint).is_file():
        try:
            verify_checkpoint(checkpoint)
        except BrokenCheckpointError as error:
            raise RunRefusedError(str(error)) from error
    cfg.load_from, cfg.resume, cfg.track = None, False, []  # the training's, of a config that its work dir holds
    runner = build_runner(with_augmentation(cfg) if augmented else cfg, [])
    try:
        loaded = runner.load_checkpoint(checkpoint, strict=True)
    except RuntimeError as error:
        raise RunRefusedError(
            f"checkpoint {checkpoint} does not fit the model of {cfg.filename}: {error}\n"
            "Next step: give the config that it was trained with, which stands in its work dir"
        ) from error
    try:
        warning = check_classes(loaded, getattr(runner.test_dataloader.dataset, "metainfo", None))
    except ValueError as error:
        raise RunRefusedError(f"checkpoint {checkpoint} was {error}") from error
    if warning:
        runner.logger.warning(warning)
    with refusals(cfg):
        metrics = scalar_metrics(runner.test())
    seconds = time.time() - start
    written = write_results(
        runner, cfg, metrics, "test", seconds, tested_checkpoint=str(checkpoint), augmented=augmented
    )
    del runner
    launch.shutdown_distributed()
    return written


def check_classes(checkpoint: Any, tested: Any) -> str | None:
    """Compares the classes that a checkpoint's content names, if it does, with those of a test set's ``metainfo``.

    Returns:
        A warning if names differ, which may be other spellings; None if they agree.

    Raises:
        ValueError: A class has another number than in training, so that figures would be of mixed-up names.
    """
    theirs, ours = (
        list((meta or {}).get("classes") or ()) for meta in (checkpoint.get("meta", {}).get("dataset_meta"), tested)
    )
    if not theirs or not ours or theirs == ours:
        return None
    moved = [name for name in ours if name in theirs and theirs.index(name) != ours.index(name)]
    text = f"trained on the classes [{', '.join(theirs)}], but the test set has [{', '.join(ours)}]"
    if moved:
        raise ValueError(
            f"{text}: {moved[0]!r} is class {ours.index(moved[0])} here and was {theirs.index(moved[0])} there. Next "
            "step: give the test set the classes of training, in their order (the list of categories of a COCO file, "
            "metainfo.classes, or classes.txt)"
        )
    return f"the checkpoint was {text}"


def with_augmentation(cfg: Any) -> Any:
    """A copy of a segmentor's config whose test set comes augmented and whose model averages.

    Raises:
        ValueError: The config has no ``tta_pipeline`` or ``tta_model``, or is a detector's.
    """
    if cfg.get("default_scope") == "mmdet":
        raise ValueError(
            "--tta: mmdet's DetTTAModel merges boxes only, and the masks would be lost. Next step: leave --tta out; "
            "detectors are tested on one size"
        )
    missing = [name for name in ("tta_pipeline", "tta_model") if not cfg.get(name)]
    if missing:
        raise ValueError(
            f"--tta: the config has no {' and no '.join(missing)}. Next step: inherit mmseg's "
            "_base_/default_runtime.py and one of its _base_/datasets, or give both"
        )
    cfg = copy.deepcopy(cfg)
    dataset = cfg.test_dataloader.dataset
    while "dataset" in dataset:
        dataset = dataset.dataset
    dataset.pipeline = cfg.tta_pipeline
    cfg.model = dict(**cfg.tta_model, module=cfg.model)
    return cfg
