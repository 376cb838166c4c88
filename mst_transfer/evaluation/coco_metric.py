"""mmdet's COCO metric on a quick backend."""

import contextlib
import io
import os.path as osp
import tempfile
from collections import Counter, OrderedDict
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from mmdet.datasets.api_wrappers import COCO
from mmdet.evaluation.metrics import CocoMetric as MMDetCocoMetric
from mmengine.logging import MessageHub, MMLogger
from pycocotools.cocoeval import COCOeval
from terminaltables import AsciiTable

from mst_transfer.evaluation import coco_backends as backends
from mst_transfer.evaluation.mask_encoding import encode_masks
from mst_transfer.files.garbage_collection import paused_collection
from mst_transfer.registry import METRICS

BACKEND_KEY = "coco_backend"  # entry of the message hub: the library that evaluated, with its version
IMAGES_KEY = "coco_images"  # entry of the message hub: how many images were evaluated, and are annotated
_AVERAGE_PRECISIONS = ("mAP", "mAP_50", "mAP_75", "mAP_s", "mAP_m", "mAP_l")
_AVERAGE_RECALLS = ("AR@100", "AR@300", "AR@1000", "AR_s@1000", "AR_m@1000", "AR_l@1000")
METRIC_NAMES = _AVERAGE_PRECISIONS + _AVERAGE_RECALLS  # in pycocotools' order


@METRICS.register_module()
class CocoMetric(MMDetCocoMetric):
    """mmdet's ``CocoMetric``: the same options, figures and files, without its detours.

    Masks are encoded a batch at a time, predictions go to the backend as columns (JSON is written only where
    ``outfile_prefix`` asks for it), and the backend matches in compiled code. Where mmdet errs, this does not:
    per-category figures belong to their category also if the file's categories are not in the order of their ids, and
    those of boxes and of masks have names of their own (``bbox_cat_precision``, where mmdet keeps the last of the two),
    ``iou_thrs`` may be a number or a list, annotation ids may begin at 0, figures are 0 where nothing was detected (-1
    where there is nothing to detect), and images of ``ann_file`` that were not predicted on are left out, with a
    warning, instead of counting as misses.

    Args:
        ann_file: Annotation file in COCO's format; without one the samples' ``instances`` are the ground truth.
        metric: One or more of ``bbox``, ``segm``, ``proposal``; not mmdet's ``proposal_fast``.
        backend: ``hotcoco``, or ``pycocotools``, some 50 times slower, which also takes ids that are texts.
        **kwargs: As in mmdet: ``classwise``, ``proposal_nums`` (three numbers), ``iou_thrs``, ``metric_items``,
            ``format_only``, ``outfile_prefix``, ``backend_args``, ``collect_device``, ``prefix``,
            ``sort_categories``, ``use_mp_eval`` (without effect).

    Raises:
        KeyError: on an unknown metric or item.
        ValueError: on an unknown backend, ``proposal_fast``, or another number of ``proposal_nums``.
    """

    _coco_api: Any
    cat_ids: Any
    img_ids: Any
    iou_thrs: Any

    def __init__(
        self, ann_file: str | None = None, metric: str | list[str] = "bbox", backend: str = "hotcoco", **kwargs: Any
    ) -> None:
        if backend not in backends.BACKENDS:
            raise ValueError(f"backend={backend!r}: it must be one of {backends.BACKENDS}")
        self.backend = backend
        super().__init__(ann_file=ann_file, metric=metric, **kwargs)
        self.iou_thrs = np.atleast_1d(np.asarray(self.iou_thrs, dtype=np.float64))
        if "proposal_fast" in self.metrics:
            raise ValueError("metric='proposal_fast' is mmdet's alone: take 'proposal', COCO's own average recalls")
        if len(self.proposal_nums) != 3:
            raise ValueError(f"proposal_nums={self.proposal_nums}: three numbers are needed, such as (100, 300, 1000)")
        for item in self.metric_items or ():
            if item not in METRIC_NAMES:
                raise KeyError(f"metric_items: {item!r} is not one of {METRIC_NAMES}")
        self._ground_truth: Any = None

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Keeps a batch's predictions, with their masks encoded."""
        super().process(data_batch, [_with_encoded_masks(sample) for sample in data_samples])

    def compute_metrics(self, results: list) -> dict[str, float]:
        """The figures of all results, as ``mmdet.evaluation.CocoMetric.compute_metrics`` names them.

        Raises:
            ValueError: if results are of images or labels that the annotations do not have, or twice of an image.
        """
        logger: MMLogger = MMLogger.get_current_instance()
        samples, predictions = zip(*results, strict=True)
        self._prepare(samples, logger)
        if self.outfile_prefix is not None:
            self.results2json([_with_listed_masks(result) for result in predictions], self.outfile_prefix)
        figures: OrderedDict[str, float] = OrderedDict()
        if self.format_only:
            logger.info(f"results are saved in {osp.dirname(self.outfile_prefix)}")
            return figures
        image_ids = self._evaluated_images(predictions, logger)
        for metric in self.metrics:
            logger.info(f"Evaluating {metric}...")
            with paused_collection():
                run = self._evaluate(predictions, metric, image_ids)
            figures.update(self._report(run, metric, logger))
        return figures

    def _prepare(self, samples: Sequence[dict], logger: MMLogger) -> None:
        """Ground truth, categories, images and backend, at the first evaluation."""
        if self._coco_api is None:
            logger.info("Converting ground truth to coco format...")
            with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
                self._coco_api = COCO(self.gt_to_coco_json(samples, self.outfile_prefix or f"{folder}/samples"))
        if self.cat_ids is None:
            self.cat_ids = self._coco_api.get_cat_ids(cat_names=self.dataset_meta["classes"])
        if self.img_ids is None:
            self.img_ids = self._coco_api.get_img_ids()
        if self._ground_truth is not None or self.format_only:
            return
        unsuited = backends.why_unsuited(self.backend, self._coco_api.dataset)
        if unsuited:
            logger.warning(f"COCO evaluation uses pycocotools, which is slow: {unsuited}")
            self.backend = "pycocotools"
        self._ground_truth = backends.load_ground_truth(self.backend, self._coco_api)
        used = f"{self.backend} {version(self.backend)}"
        logger.info(f"COCO evaluation by {used}")
        MessageHub.get_current_instance().update_info(BACKEND_KEY, used)

    def _evaluated_images(self, predictions: Sequence[dict], logger: MMLogger) -> list[Any]:
        """Ids of the images that were predicted on. Warns if there are more in the annotations, or no detection."""
        image_ids = [result["img_id"] for result in predictions]
        twice = [image_id for image_id, count in Counter(image_ids).items() if count > 1]
        if twice:
            raise ValueError(
                f"{len(twice)} images, such as id {twice[0]}, were predicted on more than once: the dataloader must "
                "take each image once, and the datasets that it joins must not share ids"
            )
        strange = set(image_ids) - set(self.img_ids)
        if strange:
            raise ValueError(
                f"predictions of {len(strange)} images, such as id {min(strange)}, that the annotations do not have: "
                "the evaluator's ann_file must be that of the dataloader's dataset"
            )
        annotated = len(set(self.img_ids))
        if len(image_ids) < annotated:
            logger.warning(
                f"COCO figures are of {len(image_ids)} of the {annotated} images of the annotations: the dataset "
                "leaves out the others (its indices or filter_cfg)"
            )
        if not any(len(result["labels"]) for result in predictions):
            logger.error("No detection in the whole dataset: every figure is 0. Lower score_thr?")
        MessageHub.get_current_instance().update_info(IMAGES_KEY, dict(evaluated=len(image_ids), annotated=annotated))
        return image_ids

    def _evaluate(self, predictions: Sequence[dict], metric: str, image_ids: Sequence[Any]) -> Any:
        """Evaluates one metric on these images: pycocotools' ``COCOeval`` with ``eval`` and ``stats``."""
        iou_type = "bbox" if metric == "proposal" else metric
        detections = backends.collect_detections(predictions, self.cat_ids, iou_type)
        run = COCOeval(iouType=iou_type)
        run.params.imgIds, run.params.catIds = image_ids, self.cat_ids
        run.params.iouThrs, run.params.maxDets = self.iou_thrs, self.proposal_nums
        run.params.useCats = int(metric != "proposal")
        backends.match(self.backend, self._ground_truth, detections, run)
        return run

    def _report(self, run: Any, metric: str, logger: MMLogger) -> dict[str, float]:
        """Logs an evaluation and names its figures."""
        with contextlib.redirect_stdout(io.StringIO()) as table:
            run.summarize()
        logger.info("\n" + table.getvalue())
        value_of = dict(zip(METRIC_NAMES, run.stats, strict=True))
        if metric == "proposal":
            return {item: float(f"{value_of[item]:.3f}") for item in self.metric_items or _AVERAGE_RECALLS}
        figures = self._classwise(run, metric, logger) if self.classwise else {}
        for item in self.metric_items or _AVERAGE_PRECISIONS:
            figures[f"{metric}_{item}"] = float(round(value_of[item], 3))
        logger.info(f"{metric}_mAP_copypaste: " + " ".join(f"{value:.3f}" for value in run.stats[:6]))
        return figures

    def _classwise(self, run: Any, metric: str, logger: MMLogger) -> dict[str, float]:
        """Logs a table of all categories; returns their average precisions, by names of each metric's own."""
        figures: dict[str, float] = {}
        prefix = f"{metric}_" if {"bbox", "segm"} <= set(self.metrics) else ""
        rows = [["category", *_AVERAGE_PRECISIONS]]
        for category in self._coco_api.loadCats(self.cat_ids):
            values = category_precisions(run, category["id"])
            rows.append([f"{category['name']}", *(f"{round(value, 3)}" for value in values)])
            figures[f"{prefix}{category['name']}_precision"] = round(values[0], 3)
        logger.info("\n" + AsciiTable(rows).table)
        return figures


def category_precisions(run: Any, category_id: int) -> list[float]:
    """AP, AP50, AP75, AP small, medium and large of one category; NaN where nothing is defined."""
    thresholds: np.ndarray = run.params.iouThrs
    column = run.eval["precision"][:, :, run.params.catIds.index(category_id), :, -1]  # [T, R, A]
    chosen = [column[..., 0], column[thresholds == 0.5, :, 0], column[thresholds == 0.75, :, 0]]
    chosen += [column[..., area] for area in (1, 2, 3)]
    return [np.mean(values[values > -1]) if (values > -1).any() else float("nan") for values in chosen]


def _with_encoded_masks(sample: dict) -> dict:
    predicted = sample["pred_instances"]
    masks = predicted.get("masks")
    if not isinstance(masks, torch.Tensor) or masks.dtype != torch.bool:
        return sample
    return {**sample, "pred_instances": {**predicted, "masks": encode_masks(masks, predicted.get("bboxes"))}}


def _with_listed_masks(result: dict) -> dict:
    return {**result, "masks": list(result["masks"])} if "masks" in result else result
