"""The libraries that match detections to ground truth: hotcoco, faster-coco-eval or pycocotools.

All give the same arrays, as ``tests/mst_transfer/evaluation`` shows: hotcoco's equal pycocotools' bit by bit,
faster-coco-eval's precision differs by rounding (3e-16). Their own summaries differ, so the figures come from
``coco_summary``.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import numpy as np

from mst_transfer.evaluation.coco_detections import Detections
from mst_transfer.evaluation.coco_summary import Evaluation

DISTRIBUTIONS = {"hotcoco": "hotcoco", "faster_coco_eval": "faster-coco-eval", "pycocotools": "pycocotools"}
BACKENDS = ("auto", *DISTRIBUTIONS)  # after auto, the quickest first
_MAX_EXACT_ID = 2**53  # hotcoco reads ids from float64 columns


@dataclass(frozen=True)
class EvaluationSettings:
    """What is compared and how.

    Attributes:
        iou_type: ``bbox`` or ``segm``.
        image_ids: Images that count.
        category_ids: Categories that count.
        iou_thresholds: ``[T]``.
        max_dets: Numbers of detections an image.
        use_categories: False to match whatever the category, as for proposals.
    """

    iou_type: str
    image_ids: Sequence[Any]
    category_ids: Sequence[int]
    iou_thresholds: np.ndarray
    max_dets: Sequence[int]
    use_categories: bool = True


def choose_backend(wanted: str) -> tuple[str, str]:
    """The backend to use, and a warning (or an empty text).

    Raises:
        ModuleNotFoundError: if the wanted one is not installed.
        ValueError: if there is none of that name.
    """
    if wanted not in BACKENDS:
        raise ValueError(f"backend={wanted!r}: it must be one of {BACKENDS}")
    installed = [name for name in DISTRIBUTIONS if find_spec(name)]
    if wanted == "auto":
        chosen = installed[0]
        slow = "COCO evaluation uses pycocotools, some 50 times slower than hotcoco: pip install hotcoco"
        return chosen, slow if chosen == "pycocotools" else ""
    if wanted not in installed:
        raise ModuleNotFoundError(
            f"backend={wanted!r} is not installed: pip install {DISTRIBUTIONS[wanted]}, or set backend='auto'"
        )
    return wanted, ""


def backend_version(name: str) -> str:
    """For example ``hotcoco 1.3.0``."""
    return f"{DISTRIBUTIONS[name]} {version(DISTRIBUTIONS[name])}"


def why_unsuited(name: str, dataset: dict[str, Any]) -> str:
    """Why a backend cannot evaluate a dataset in COCO's format; empty if it can."""
    if name == "pycocotools":
        return ""
    images = (image["id"] for image in dataset["images"])
    categories = (category["id"] for category in dataset["categories"])
    odd = next((i for ids in (images, categories) for i in ids if not _is_plain_id(i)), None)
    return "" if odd is None else f"id {odd!r} is not an integer below 2**53"


def _is_plain_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < _MAX_EXACT_ID


def evaluate(name: str, ground_truth: Any, detections: Detections, settings: EvaluationSettings) -> Evaluation:
    """Matches detections to ground truth.

    Args:
        name: A backend of ``BACKENDS`` other than ``auto``.
        ground_truth: What ``load_ground_truth`` returned for it.
        detections: What was found, perhaps nothing.
        settings: What is compared and how.
    """
    functions: dict[str, Callable[[Any, Detections, EvaluationSettings], dict[str, Any]]] = {
        "hotcoco": _evaluate_hotcoco,
        "faster_coco_eval": _evaluate_faster_coco_eval,
        "pycocotools": _evaluate_pycocotools,
    }
    ordered = EvaluationSettings(
        iou_type=settings.iou_type,
        image_ids=sorted(set(settings.image_ids)),
        category_ids=sorted(set(settings.category_ids)),
        iou_thresholds=np.asarray(settings.iou_thresholds, dtype=np.float64),
        max_dets=sorted(settings.max_dets),
        use_categories=settings.use_categories,
    )
    arrays = functions[name](ground_truth, detections, ordered)
    return Evaluation(
        precision=np.asarray(arrays["precision"]),
        recall=np.asarray(arrays["recall"]),
        category_ids=ordered.category_ids,
        iou_thresholds=ordered.iou_thresholds,
        max_dets=ordered.max_dets,
    )


def load_ground_truth(name: str, coco: Any) -> Any:
    """A backend's own index of the annotations, numbered from 1.

    pycocotools and faster-coco-eval take a match with the annotation of id 0 for none, in mmdet's metric too: its
    figures of a file that counts from 0 are lower.

    Args:
        name: The backend.
        coco: A ``pycocotools.coco.COCO``; left as it is.
    """
    numbered = [
        {**annotation, "id": number} for number, annotation in enumerate(coco.dataset.get("annotations", ()), 1)
    ]
    dataset = {"info": {}, "licenses": [], **coco.dataset, "annotations": numbered}
    if name == "hotcoco":
        import hotcoco

        return hotcoco.COCO(dataset)
    if name == "faster_coco_eval":
        from faster_coco_eval import COCO

        return COCO(dataset)
    return _indexed(type(coco)(), dataset)


def _indexed(coco: Any, dataset: dict[str, Any]) -> Any:
    """An empty ``COCO`` of pycocotools or faster-coco-eval with a dataset in it."""
    coco.dataset = dataset
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def _load_results(ground_truth: Any, detections: Detections) -> Any:
    if len(detections):
        return ground_truth.loadRes(detections.as_results())
    return _indexed(type(ground_truth)(), {**ground_truth.dataset, "annotations": []})  # loadRes takes no empty list


def _evaluate_hotcoco(ground_truth: Any, detections: Detections, settings: EvaluationSettings) -> dict[str, Any]:
    import hotcoco

    columns = np.empty((len(detections), 7))
    columns[:, 0], columns[:, 1:5] = detections.image_ids, detections.boxes
    columns[:, 5], columns[:, 6] = detections.scores, detections.category_ids
    if detections.masks is None or not len(detections):
        found = ground_truth.load_res(columns)
    else:
        found = ground_truth.load_res(columns, segmentation=detections.masks)
        ids = np.arange(1, len(detections) + 1)
        found.update_anns(ids=ids, area=hotcoco.mask.area(detections.masks))  # for now they are the boxes'
    run: Any = hotcoco.COCOeval(ground_truth, found, settings.iou_type)
    run.params.img_ids = settings.image_ids
    run.params.cat_ids = settings.category_ids
    run.params.iou_thrs = settings.iou_thresholds.tolist()
    run.params.max_dets = settings.max_dets
    run.params.use_cats = settings.use_categories
    run.evaluate()
    run.accumulate()
    return run.eval


def _evaluate_pycocotools(ground_truth: Any, detections: Detections, settings: EvaluationSettings) -> dict[str, Any]:
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        found = _load_results(ground_truth, detections)
        return _run(COCOeval(ground_truth, found, settings.iou_type), settings)


def _evaluate_faster_coco_eval(
    ground_truth: Any, detections: Detections, settings: EvaluationSettings
) -> dict[str, Any]:
    from faster_coco_eval import COCOeval_faster

    found = _load_results(ground_truth, detections)
    return _run(COCOeval_faster(ground_truth, found, settings.iou_type), settings)


def _run(run: Any, settings: EvaluationSettings) -> dict[str, Any]:
    run.params.imgIds = settings.image_ids
    run.params.catIds = settings.category_ids
    run.params.iouThrs = settings.iou_thresholds
    run.params.maxDets = settings.max_dets
    run.params.useCats = int(settings.use_categories)
    run.evaluate()
    run.accumulate()
    return run.eval
