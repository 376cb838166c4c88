"""Runs a trained head on validation images, for pictures beside the truth."""

import contextlib
import io
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Instances(NamedTuple):
    """Boxes [N, 4] as (x0, y0, x1, y1) in pixels of the file, masks [N, H, W], classes [N]; the truth has no scores."""

    boxes: NDArray[np.float32]
    masks: NDArray[np.bool_]
    labels: NDArray[np.int64]
    scores: NDArray[np.float32] | None = None


class Prediction(NamedTuple):
    """One image by its file name, RGB [H, W, 3], what is in it and what was found: instances, or label maps [H, W]."""

    name: str
    image: NDArray[np.uint8]
    truth: Any
    found: Any


def spread(total: int, wanted: int) -> list[int]:
    """Indices of ``wanted`` of ``total`` images, evenly spaced: they are not chosen by their looks."""
    wanted = min(wanted, total)
    return [(2 * k + 1) * total // (2 * wanted) for k in range(wanted)]


def predict(cfg: Any, checkpoint: str | Path, num_images: int = 5, min_score: float = 0.3) -> tuple[tuple, list]:
    """Runs a trained head on some of its validation images, evenly spaced, on the CPU.

    Args:
        cfg: mmengine's ``Config`` of the run; its ``default_scope`` is "mmdet" or "mmseg".
        checkpoint: of the whole model.
        num_images: how many images.
        min_score: instances below it are left out.

    Returns:
        The names of the classes, and a :class:`Prediction` of each image.

    Raises:
        UnreadableImageError: an image is broken; it is named.
        RuntimeError: the checkpoint is not of this model.
    """
    from mmengine.model import revert_sync_batchnorm
    from mmengine.registry import DATASETS, MODELS, init_default_scope
    from mmengine.runner import load_checkpoint

    init_default_scope(cfg.default_scope)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        warnings.filterwarnings("ignore", category=UserWarning, module=r"mm(det|seg|cv|engine)\.")
        dataset = DATASETS.build(cfg.val_dataloader.dataset)
        dataset.full_init()
        model = revert_sync_batchnorm(MODELS.build(cfg.model)).eval()
        load_checkpoint(model, str(checkpoint), map_location="cpu", strict=True, logger="silent")
        found = [_predict(model, dataset, index, min_score) for index in spread(len(dataset), num_images)]
    return tuple(dataset.metainfo["classes"]), found


def _predict(model: Any, dataset: Any, index: int, min_score: float) -> Prediction:
    import torch
    from mmengine.dataset import pseudo_collate

    from mst_transfer.datasets.load_image import LoadImage

    info = dataset.get_data_info(index)
    name, image = Path(info["img_path"]).name, LoadImage()(dict(img_path=info["img_path"]))["img"][..., ::-1]
    with torch.no_grad():
        sample = model.test_step(pseudo_collate([dataset[index]]))[0]
    if "pred_sem_seg" in sample:
        from mmseg.datasets.transforms import LoadAnnotations as LoadLabelMap

        truth = LoadLabelMap(imdecode_backend="pillow")(dict(info, seg_fields=[]))["gt_seg_map"].astype(np.int64)
        return Prediction(name, image, truth, sample.pred_sem_seg.data[0].cpu().numpy())
    from mmdet.datasets.transforms import LoadAnnotations

    true = LoadAnnotations(with_mask=True, box_type=None)(dict(info, ori_shape=image.shape[:2]))
    kept, found = ~true["gt_ignore_flags"], sample.pred_instances
    truth = Instances(true["gt_bboxes"][kept], true["gt_masks"].masks[kept] > 0, true["gt_bboxes_labels"][kept])
    found = found[found.scores >= min_score].cpu().numpy()
    return Prediction(name, image, truth, Instances(found.bboxes, found.masks > 0, found.labels, found.scores))
