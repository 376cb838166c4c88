"""Runs a trained head on photographs: boxes and masks in COCO's format or label maps, and pictures of them."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.dataset import Compose, pseudo_collate
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, VISUALIZERS, init_default_scope
from mmengine.runner import load_checkpoint
from PIL import Image

from mst_transfer.configs.datasets import unwrap
from mst_transfer.configs.read import DETECTION, SEGMENTATION, check_kind, config_kind
from mst_transfer.configs.saved import read_config_of_run, registered_types_only
from mst_transfer.datasets.load_image import LoadImage
from mst_transfer.devices.onednn_products import quick_products
from mst_transfer.engine.fit.devices import adapt_to_devices
from mst_transfer.engine.image_checks import ImageChecks, check_pipelines
from mst_transfer.engine.run import load_run_config
from mst_transfer.evaluation.mask_encoding import encode_masks
from mst_transfer.files.atomic_files import write_text_atomically
from mst_transfer.files.checksums import verify_checkpoint
from mst_transfer.files.image_files import UnreadableImageError, shown_path
from mst_transfer.files.image_folder import find_images
from mst_transfer.runs.checkpoints import existing_checkpoint, newest_whole_checkpoint
from mst_transfer.runs.progress import Progress

FILE = "predictions.json"


class Predictions(NamedTuple):
    """Their folder, how many images and (of a detector) objects they are of, and unreadable file → reason."""

    folder: Path
    num_images: int
    num_objects: int
    unreadable: dict[str, str]


class TrainedHead:
    """A detector or segmentor with the pipeline of its tests; arguments and errors as of ``predict``."""

    def __init__(self, run: str | Path, checkpoint: str | Path | None = None, trust_config: bool = False) -> None:
        is_run = Path(run).is_dir()
        if checkpoint is None and not is_run:
            raise ValueError(f"{run} is no work dir of mst train. Next step: name one, or a config with --checkpoint")
        cfg = read_config_of_run(run, trust_config) if is_run else load_run_config(str(run))
        check_kind(cfg, DETECTION, SEGMENTATION)
        found = checkpoint or newest_whole_checkpoint(run)[0] or Path(run) / "epoch_N.pth"
        self.checkpoint = Path(existing_checkpoint(str(found)))
        verify_checkpoint(self.checkpoint)
        self.detects = config_kind(cfg) == DETECTION
        adapt_to_devices(cfg, 1, torch.cuda.is_available())
        init_default_scope(cfg.get("default_scope") or ("mmdet" if self.detects else "mmseg"))
        if "checkpoint" in cfg.model.get("backbone", {}):
            cfg.model.backbone.checkpoint = None  # the head's own checkpoint holds the backbone
        _, dataset = next(unwrap("", (cfg.get("test_dataloader") or cfg.val_dataloader).dataset))
        kind = "mmdet.DetLocalVisualizer" if self.detects else "mmseg.SegLocalVisualizer"
        with registered_types_only():
            model = revert_sync_batchnorm(MODELS.build(cfg.model)).eval()
            reader = Compose([step for step in dataset.pipeline if "Annotations" not in step["type"]])
            self.visualizer = VISUALIZERS.get(kind)(alpha=0.5)
        check_pipelines(SimpleNamespace(pipeline=reader), ImageChecks.of(cfg) or ImageChecks(), None)
        try:
            content = load_checkpoint(model, str(self.checkpoint), "cpu", strict=True, logger="silent")
        except RuntimeError as error:
            raise ValueError(f"checkpoint {self.checkpoint} does not fit the model of {run}: {error}") from error
        meta = content.get("meta", {}).get("dataset_meta") or dataset.get("metainfo") or {}
        self.classes, self.palette = ([*(meta.get(name) or ())] for name in ("classes", "palette"))
        if len(self.palette) < len(self.classes):
            self.palette = np.random.default_rng(0).integers(256, size=(len(self.classes), 3)).tolist()
        self.visualizer.dataset_meta = dict(classes=self.classes, palette=[*map(tuple, self.palette)])
        self.reader, self.model = reader, model.to("cuda" if torch.cuda.is_available() else "cpu")

    def __call__(self, path: Path) -> Any:
        """The library's data sample of an image file; UnreadableImageError if it can't be read."""
        batch = pseudo_collate([self.reader(dict(img_path=str(path), img_id=0))])
        with torch.no_grad(), quick_products(next(self.model.parameters()).device):
            return self.model.test_step(batch)[0].cpu()


def predict(
    run: str | Path,
    images: str | Path,
    out: str | Path | None = None,
    *,
    checkpoint: str | Path | None = None,
    score: float = 0.3,
    overwrite: bool = False,
    trust_config: bool = False,
) -> Predictions:
    """Runs a trained head on an image, or on all of a folder and its sub-folders; unreadable ones are left out.

    Args:
        run: work dir of ``mst train``; or a config, with ``checkpoint``.
        images: file or folder.
        out: gets ``predictions.json`` in COCO's format, ``drawn/`` and, of a segmentor, ``labels/``, whose pixels are
            ids of classes; folders as in ``images``. Default: ``predictions`` beside the checkpoint.
        checkpoint: default: the newest whole one of the work dir.
        score: objects below it are left out, 0 to 1.
        overwrite: ``out`` may hold files, which are replaced.
        trust_config: run the ``.py`` of the work dir instead of reading ``run_config.json``.

    Raises:
        FileNotFoundError: no such run, checkpoint or image.
        ValueError: they do not fit, ``out`` is in use, or no image can be read.
        OSError: ``out`` cannot be written.
    """
    if not 0 <= score <= 1:
        raise ValueError(f"--score {score:g} must lie between 0 and 1")
    root = Path(images)
    paths = [root] if root.is_file() else [Path(path) for path in find_images(root)]
    head = TrainedHead(run, checkpoint, trust_config)
    out = Path(out or head.checkpoint.parent / "predictions")
    if not overwrite and out.is_dir() and any(out.iterdir()):
        raise ValueError(f"{out} is not empty. Next step: another --out; or --overwrite, which replaces files there")
    write_text_atomically(out / FILE, "{}")  # can it be written?
    paths = [path for path in paths if out.resolve() not in path.resolve().parents]  # drawn at another time
    found: dict[str, list] = dict(images=[], annotations=[])
    stems: set[str] = set()
    unreadable: dict[str, str] = {}
    progress = Progress("images:", len(paths))
    for number, path in enumerate(paths, 1):
        name = Path(path.name) if path == root else path.relative_to(root)
        try:
            _predict_one(head, path, name, out, score, found, stems)
        except UnreadableImageError as error:
            unreadable[shown_path(name)] = str(error.__cause__ or error)
            print(f"{shown_path(path)} cannot be read: {error.__cause__ or error}", file=sys.stderr)
        progress(number)
    if not found["images"]:
        raise ValueError(f"none of the {len(paths)} images of {images} can be read")
    info = dict(checkpoint=str(head.checkpoint), score=score, unreadable=unreadable)
    names = enumerate(zip(head.classes, head.palette, strict=False), head.detects)
    categories = [dict(id=number, name=name, color=[*colour]) for number, (name, colour) in names]
    write_text_atomically(out / FILE, json.dumps(dict(info=info, categories=categories, **found)))
    return Predictions(out, len(found["images"]), len(found["annotations"]), unreadable)


def _predict_one(
    head: TrainedHead, path: Path, name: Path, out: Path, score: float, found: dict[str, list], stems: set[str]
) -> None:
    sample = head(path)
    stem = name if name.with_suffix("").as_posix() in stems else name.with_suffix("")  # a.png after a.jpg
    stems.add(stem.as_posix())
    image = LoadImage()(dict(img_path=str(path)))["img"][..., ::-1]
    options = dict(pred_score_thr=score) if head.detects else dict(with_labels=False)  # labels take seconds
    picture = out / "drawn" / f"{stem}.jpg"
    head.visualizer.add_datasample("", image, sample, draw_gt=False, out_file=str(picture), **options)
    number, (height, width, _) = len(found["images"]) + 1, image.shape
    found["images"].append(dict(id=number, file_name=name.as_posix(), height=height, width=width))
    if head.detects:
        found["annotations"] += coco_objects(sample.pred_instances, score, number, len(found["annotations"]) + 1)
        return
    labels = sample.pred_sem_seg.data[0].numpy().astype(np.uint8 if len(head.classes) <= 256 else np.uint16)
    (out / "labels" / stem).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(labels).save(out / "labels" / f"{stem}.png")


def coco_objects(found: Any, score: float, image_id: int, first_id: int) -> list[dict[str, Any]]:
    """COCO's entries of mmdet's ``pred_instances`` with at least this score: boxes in pixels, masks as run lengths."""
    found = found[found.scores >= score]
    codes = [*encode_masks(found.masks, found.bboxes)] if "masks" in found else [None] * len(found)
    entries: list[dict[str, Any]] = []
    for number, ((x0, y0, x1, y1), code) in enumerate(zip(found.bboxes.tolist(), codes, strict=True)):
        label, confidence = found.labels[number].item(), found.scores[number].item()
        entry = dict(id=first_id + number, image_id=image_id, category_id=label + 1, score=confidence, iscrowd=0)
        entries.append({**entry, "bbox": [x0, y0, x1 - x0, y1 - y0], "area": (x1 - x0) * (y1 - y0)})
        if code is not None:
            entries[-1]["segmentation"] = {**code, "counts": code["counts"].decode()}
            entries[-1]["area"] = found.masks[number].sum().item()
    return entries
