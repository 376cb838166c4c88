"""Trains and tests detectors (mmdet) and segmentors (mmseg) from a config.

Everything that a user can get wrong is found by ``load_run_config`` and ``check_inputs``, before any process group,
dataset or model is made; their ``ValueError`` and ``FileNotFoundError`` say the next step.
"""

import itertools
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from mst_transfer.configs import saved
from mst_transfer.configs.paths import check_load_from
from mst_transfer.configs.read import DETECTION, SEGMENTATION, read_config
from mst_transfer.engine import results
from mst_transfer.engine.fit.backbone import fit_to_backbone, is_ours
from mst_transfer.engine.fit.devices import adapt_to_devices, check_amp, enable_amp, enable_auto_scale_lr
from mst_transfer.engine.plan import batch_plan
from mst_transfer.runs import launch

DEFAULT_SEED = 0
TRAINING_LOADERS = ("train_dataloader", "val_dataloader")
TEST_LOADERS = ("test_dataloader",)
_number = itertools.count()  # of runs in this process


class RunRefusedError(ValueError):
    """The model cannot be built from the config, or a checkpoint is not of this model."""


def load_run_config(
    config: str,
    *,
    work_dir: str | None = None,
    seed: int | None = None,
    resume: str | None = None,
    amp: bool = False,
    auto_scale_lr: bool = False,
    accumulate: str | int | None = None,
    cfg_options: Mapping[str, Any] | None = None,
    coco: Sequence[str] | None = None,
    coco_images: Sequence[str] | None = None,
    yolo: str | None = None,
    voc: str | None = None,
    cvat: Sequence[str] | None = None,
    track: Sequence[str] = (),
    masks: Sequence[str] | None = None,
    launcher: str = "none",
) -> Any:
    """Reads a config, checks every name in it and applies a command line to it.

    Args:
        config: Path, ``mst_transfer::NAME`` or NAME of a shipped config.
        work_dir: Where checkpoints and logs go; the default is the config's, or ``work_dirs/<config's name>``.
        seed: Seed of every random draw; the default is the config's, or 0.
        resume: Checkpoint to go on from; ``auto`` takes the newest whole one in the work dir, if there is one.
        amp: Mixed precision.
        auto_scale_lr: Scale the learning rate by the batch size.
        accumulate: Batches whose gradients make one step; ``auto``: as many as make the recipe's batch.
        cfg_options: Dotted path → new value.
        coco: Annotations in COCO's format to train and to validate on, instead of the config's.
        coco_images: Folders of their images; found beside the annotations if not given.
        yolo: Ultralytics' ``data.yaml``, instead of ``coco``.
        voc: Root of Pascal VOC's layout, likewise.
        cvat: Two files of "CVAT for images 1.1", likewise.
        track: Trackers: ``tensorboard``, ``mlflow``, ``wandb``.
        masks: Patterns of a segmentor's images and label maps: see ``mst_transfer.engine.fit.own_masks.use_masks``.
        launcher: ``none``, ``pytorch`` or ``slurm``.

    Raises:
        FileNotFoundError: No such config or checkpoint.
        ValueError: A name that nothing reads, an option that does not go with the config, classes to be taken from the
            data that contradict each other, a broken checkpoint, or a pre-training config.
    """
    cfg, options = read_config(config, cfg_options, (DETECTION, SEGMENTATION))
    _say(fit_to_backbone(cfg, options))
    cfg.work_dir = work_dir or cfg.get("work_dir") or str(Path("work_dirs") / Path(config).stem)
    if cfg.get("experiment_name") is None or Path(config).name == saved.FILE:
        # mmengine keys logs by name and second: two runs of one process must not share them
        cfg.experiment_name = "_".join((*Path(cfg.work_dir).absolute().parts[-2:], str(next(_number))))
    cfg.launcher = launcher
    if names := track or cfg.get("track"):
        from mst_transfer.runs.trackers import check_trackers

        cfg.track = check_trackers(names)
    randomness = dict(cfg.get("randomness") or {})
    if seed is not None or randomness.get("seed") is None:
        randomness["seed"] = DEFAULT_SEED if seed is None else seed
    cfg.randomness = randomness
    logger = (cfg.get("default_hooks") or {}).get("logger")
    if logger and str(logger.get("type")).rpartition(".")[2] == "LoggerHook":
        logger.setdefault("log_metric_by_epoch", False)  # validations on the axis that all else has: steps
    if amp:
        enable_amp(cfg)
    if auto_scale_lr:
        enable_auto_scale_lr(cfg)
    if accumulate is not None:
        batch_plan.want_accumulation(cfg, accumulate)
    if resume:
        _set_resume(cfg, resume)
    from mst_transfer.engine.fit.infer_classes import infer_classes
    from mst_transfer.engine.fit.own_coco import learn_boxes_alone, own_labels, use_coco_files
    from mst_transfer.engine.fit.own_masks import say_pairs, use_masks

    if masks:
        use_masks(cfg, masks)
    _say(say_pairs(cfg))
    coco, coco_images = own_labels(Path(cfg.work_dir) / "labels", coco, coco_images, yolo=yolo, voc=voc, cvat=cvat)
    former = use_coco_files(cfg, coco, coco_images) if coco else None
    _say(learn_boxes_alone(cfg) if coco else ())
    _say(infer_classes(cfg, former))
    return cfg


def _say(sentences: Iterable[str]) -> None:
    for sentence in sentences:
        if launch.rank() == 0:
            print(sentence)


def _set_resume(cfg: Any, resume: str) -> None:
    from mst_transfer.runs.checkpoints import find_checkpoint

    with suppress(ValueError, RuntimeError):  # told where the run begins
        launch.init_distributed(cfg.launcher)
    checkpoint = find_checkpoint(cfg.work_dir, resume)
    if checkpoint is None:
        return
    cfg.load_from, cfg.resume = checkpoint, True
    beginning = results.backbone_checkpoint(cfg)
    if beginning != "random" and is_ours(cfg):  # the checkpoint holds the backbone: its file need not be there
        cfg[results.BEGINNING] = beginning
        cfg.model.backbone["checkpoint"] = cfg.model.backbone["init_cfg"] = None


def check_inputs(cfg: Any, training: bool) -> list[Any]:
    """Refuses a config whose data, or backbone's checkpoint, are missing or do not fit it, or whose parts do not fit.

    Returns:
        What is in each dataset: ``mst_transfer.preflight.findings.SetSummary``.

    Raises:
        FileNotFoundError: A path does not exist; the message says what belongs there and where to get it.
        ValueError: Config and files disagree, e.g. no class of the config occurs in the annotations.
    """
    from mst_transfer.engine.check_model import check_model
    from mst_transfer.preflight.check import check_datasets

    if training:
        import torch

        check_amp(cfg, torch.cuda.is_available())
    summaries = check_datasets(cfg, TRAINING_LOADERS if training else TEST_LOADERS)
    if training:
        check_load_from(cfg)
    check_model(cfg, begins=training and not cfg.get("resume"))
    return summaries


def run_training(cfg: Any, fresh: bool = False) -> dict[str, Any]:
    """Trains, validates as the config says, and writes ``results.json``, whose content it returns.

    Args:
        cfg: From ``load_run_config``.
        fresh: Where the work dir holds an earlier run's checkpoints, set them aside instead of refusing to start.

    Raises:
        CheckpointNotSavedError: A checkpoint could not be written; earlier ones are as they were.
        RunRefusedError: The model cannot be built, or the backbone's checkpoint is not of its architecture; the
            checkpoint to resume is of another run; or the work dir is another run's, gone by or going on.
    """
    from mst_transfer.runs.work_dir import locked

    start = time.time()
    launch.init_distributed(cfg.launcher)
    with ExitStack() as stack:
        try:
            unprotected = stack.enter_context(locked(cfg.work_dir))
        except ValueError as error:
            raise RunRefusedError(str(error)) from error
        written = _train(cfg, fresh, [] if unprotected is None else [unprotected], start)
    launch.shutdown_distributed()
    return written


def _train(cfg: Any, fresh: bool, notices: list[str], start: float) -> dict[str, Any]:
    from mst_transfer.checkpoint.addresses import fetch, is_address
    from mst_transfer.engine.run_record import RunRecordHook
    from mst_transfer.runs.work_dir import begin_anew

    try:
        plan = batch_plan.plan_batch(cfg, launch.world_size())
        batch_plan.check_batch_norm(cfg, plan)
        if is_ours(cfg) and is_address(path := cfg.model.backbone.get("checkpoint") or ""):
            cfg.model.backbone.checkpoint = fetch(path)[1]  # with its commit, for the records
        moved = None if cfg.get("resume") else begin_anew(cfg.work_dir, fresh)
        notices += [*([moved] if moved else []), *batch_plan.apply_batch_plan(cfg, plan)]
    except ValueError as error:
        raise RunRefusedError(str(error)) from error
    runner, record = build_runner(cfg, notices), RunRecordHook(start, plan.stretch)
    runner.register_hook(record)
    with refusals(cfg):
        runner.train()
    extra: dict[str, Any] = {"unfinished_schedules": record.unfinished} if record.unfinished else {}
    metrics = record.final_metrics(runner)
    return results.write_results(runner, cfg, metrics, "train", record.seconds, batch=plan.as_dict(), **extra)


@contextmanager
def refusals(cfg: Any) -> Iterator[None]:
    """Turns what a user can mend, found by whatever process in the course of a run, into a refusal in a few words."""
    from mst_transfer.checkpoint.errors import BackboneRefusedError
    from mst_transfer.engine.checkpoints import WeightsRefusedError
    from mst_transfer.engine.resume.loops import ResumeRefusedError
    from mst_transfer.files.checksums import BrokenCheckpointError
    from mst_transfer.files.image_files import UnreadableImageError
    from mst_transfer.runs.identity import OtherRunError
    from mst_transfer.runs.workers import plain_message

    try:
        yield
    except UnreadableImageError as error:
        raise RunRefusedError(plain_message(error)) from error
    except BackboneRefusedError as error:
        raise RunRefusedError(f"model.backbone.checkpoint: {error}") from error
    except WeightsRefusedError as error:
        raise RunRefusedError(f"load_from: {error}") from error
    except (ResumeRefusedError, OtherRunError, BrokenCheckpointError) as error:
        raise RunRefusedError(f"--resume {cfg.load_from}: {error}") from error


def build_runner(cfg: Any, notices: list[str]) -> Any:
    """Joins the process group, adapts the config to the devices and builds the Runner, whose log gets the notices."""
    import torch

    from mst_transfer.engine.checkpoints import use_safe_checkpoints
    from mst_transfer.engine.image_checks import ImageChecks
    from mst_transfer.engine.runner import TransferRunner

    launch.init_distributed(cfg.launcher)
    use_safe_checkpoints(cfg)
    notices += adapt_to_devices(cfg, launch.world_size(), torch.cuda.is_available())
    try:
        ImageChecks.of(cfg)
        runner = TransferRunner.from_cfg(cfg)
    except ValueError as error:
        raise RunRefusedError(f"{cfg.filename}: {error}") from error
    if cfg.get("resume") and cfg.get(results.BEGINNING):
        beginning = cfg[results.BEGINNING]
        notices.append(f"the backbone's weights are those of {cfg.load_from}, so {beginning} is not read")
    for notice in notices:
        runner.logger.info(notice)
    return runner
