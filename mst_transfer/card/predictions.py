"""Runs a trained head on validation images, for pictures beside the truth."""

import contextlib
import io
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


def predict(run: str | Path, num_images: int = 4, min_score: float = 0.3) -> tuple[list[str], list[Prediction]]:
    """Runs the head in a work directory on some of its validation images, evenly spaced.

    Instances with less than ``min_score`` are left out.

    Returns:
        The names of the classes, and the predictions.

    Raises:
        FileNotFoundError, ValueError: see :class:`mst_transfer.engine.predict.TrainedHead`.
        UnreadableImageError: an image is broken; it is named.
    """
    from mmengine.registry import DATASETS

    from mst_transfer.configs.saved import read_config_of_run
    from mst_transfer.engine.predict import TrainedHead

    head = TrainedHead(run)
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        dataset = DATASETS.build(read_config_of_run(run).val_dataloader.dataset)
        infos = [dataset.get_data_info(index) for index in spread(len(dataset), num_images)]
    return head.classes, [_predict(head, info, min_score) for info in infos]


def _predict(head: Any, info: dict[str, Any], min_score: float) -> Prediction:
    from mst_transfer.datasets.load_image import LoadImage

    name, image = Path(info["img_path"]).name, LoadImage()(dict(img_path=info["img_path"]))["img"][..., ::-1]
    sample = head(info["img_path"]).numpy()
    if not head.detects:
        from mmseg.datasets.transforms import LoadAnnotations as LoadLabelMap

        truth = LoadLabelMap(imdecode_backend="pillow")(dict(info, seg_fields=[]))["gt_seg_map"].astype(np.int64)
        return Prediction(name, image, truth, sample.pred_sem_seg.data[0])
    from mmdet.datasets.transforms import LoadAnnotations

    true = LoadAnnotations(with_mask=True, box_type=None)(dict(info, ori_shape=image.shape[:2]))
    kept, found = ~true["gt_ignore_flags"], sample.pred_instances
    truth = Instances(true["gt_bboxes"][kept], true["gt_masks"].masks[kept] > 0, true["gt_bboxes_labels"][kept])
    found = found[found.scores >= min_score]
    return Prediction(name, image, truth, Instances(found.bboxes, found.masks > 0, found.labels, found.scores))
