"""Figures under weights against brute force on data sets whose images are really repeated."""

import contextlib
import copy
import io
from pathlib import Path

import numpy as np
import pycocotools.mask as mask_util
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from random_coco import random_dataset, random_samples

from mst_transfer.card.measures import Accuracy, MeanAP, MeanIoU, Measure, digest_of, mean_ap
from mst_transfer.card.outcomes import Key, load_outcomes, save_outcome

TIMES = np.random.default_rng(0).integers(0, 4, (5, 12))  # whole numbers of copies of 12 images
TIMES[0], TIMES[1] = 1, np.arange(12) == 7


def coco_case(seed: int, distinct: bool) -> tuple[dict, list[dict]]:
    """Ground truth and results; scores of different detections are distinct on request."""
    dataset = random_dataset(seed, num_images=12)
    categories = [category["id"] for category in dataset["categories"]]
    results = []
    for sample in random_samples(dataset, seed):
        found = sample["pred_instances"]
        columns = (found[key].numpy() for key in ("bboxes", "scores", "labels", "masks"))
        for box, score, label, mask in zip(*columns, strict=True):
            run_length = mask_util.encode(np.asfortranarray(mask.astype(np.uint8)))
            corner = [float(value) for value in (box[0], box[1], box[2] - box[0], box[3] - box[1])]
            result = dict(image_id=sample["img_id"], category_id=categories[label], score=float(score), bbox=corner)
            results.append(result | {"segmentation": {**run_length, "counts": run_length["counts"].decode()}})
    if distinct:
        order = np.random.default_rng(seed).permutation(len(results))
        results = [{**result, "score": 0.01 + rank / 1000} for result, rank in zip(results, order, strict=True)]
    return dataset, results


def of_kind(results: list[dict], iou_type: str) -> list[dict]:
    """pycocotools takes the area of the box where a result has one."""
    return [{k: v for k, v in copy.deepcopy(r).items() if iou_type == "bbox" or k != "bbox"} for r in results]


def repeated(dataset: dict, results: list[dict], times: np.ndarray) -> tuple[dict, list[dict]]:
    """A data set that holds every image so many times, the copies side by side in the order of ids."""
    copies = {image["id"]: range(count) for image, count in zip(dataset["images"], times, strict=True)}

    def again(items: list[dict], key: str) -> list[dict]:
        return [{**item, key: 1000 * item[key] + number} for item in items for number in copies[item[key]]]

    annotations = again(dataset["annotations"], "image_id")
    annotations = [{**annotation, "id": number} for number, annotation in enumerate(annotations, 1)]
    return {**dataset, "images": again(dataset["images"], "id"), "annotations": annotations}, again(results, "image_id")


def pycocotools_figures(dataset: dict, results: list[dict], iou_type: str) -> tuple[float, list[float]]:
    """mAP of all and of each class in per cent; NaN for a class without instance."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = copy.deepcopy(dataset)
        truth.createIndex()
        run = COCOeval(truth, truth.loadRes(of_kind(results, iou_type)), iou_type)
        run.evaluate()
        run.accumulate()
        run.summarize()
    classes = np.moveaxis(run.eval["precision"][:, :, :, 0, -1], 2, 0)
    return 100 * run.stats[0], [100 * c[c > -1].mean() if (c > -1).any() else np.nan for c in classes]


@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
@pytest.mark.parametrize("seed", [0, 10, 20])
def test_average_precision_is_that_of_pycocotools(seed: int, iou_type: str) -> None:
    """Crowds, equal scores, ignored instances, a class without instance."""
    dataset, results = coco_case(seed, distinct=False)
    measure = mean_ap(dataset, of_kind(results, iou_type), iou_type)
    figure, classes = pycocotools_figures(dataset, results, iou_type)
    assert figure > 0
    assert measure.figures(TIMES[:1]) == pytest.approx([figure], abs=1e-9)
    assert measure.per_class() == pytest.approx(classes, abs=1e-9, nan_ok=True)


@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
@pytest.mark.parametrize("seed", [0, 10, 20])
def test_weighted_average_precision_is_that_of_repeated_images(seed: int, iou_type: str) -> None:
    dataset, results = coco_case(seed, distinct=True)
    measure = mean_ap(dataset, of_kind(results, iou_type), iou_type)
    assert len(measure.image) == len(results) and (measure.state == 2).any()
    expected = []
    for times in TIMES:
        again = repeated(dataset, results, times)
        there = again[0]["annotations"] and again[1]
        expected.append(max(pycocotools_figures(*again, iou_type)[0], 0.0) if there else 0.0)
    assert len(set(expected)) > 2
    assert measure.figures(TIMES) == pytest.approx(expected, abs=1e-9)


def test_many_draws_come_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    measure = mean_ap(*coco_case(1, distinct=False), "bbox")
    whole = measure.figures(TIMES)
    monkeypatch.setattr("mst_transfer.card.measures._AT_ONCE", 1)
    assert (measure.figures(TIMES) == whole).all()


def test_no_detection_is_no_precision() -> None:
    measure = mean_ap(coco_case(1, distinct=False)[0], [], "bbox")
    assert (measure.figures(TIMES) == 0).all()


def test_mean_iou_is_that_of_repeated_images() -> None:
    """Class 3 is in image 0 alone, class 4 is predicted and never true."""
    random = np.random.default_rng(0)
    true, predicted = random.integers(0, 3, (2, 12, 50))
    true[0, :5], predicted[:, 7:9] = 3, 4
    counts = [
        [[((t == c) & (p == c)).sum(), (p == c).sum(), (t == c).sum()] for c in range(5)]
        for t, p in zip(true, predicted, strict=True)
    ]
    measure = MeanIoU(np.array(counts))
    expected = []
    for times in TIMES:
        t, p = (np.repeat(labels, times, axis=0).ravel() for labels in (true, predicted))
        ious = [((t == c) & (p == c)).sum() / ((t == c) | (p == c)).sum() for c in range(5) if (t == c).any()]
        expected.append(100 * np.mean(ious))
    assert measure.figures(TIMES) == pytest.approx(expected)
    assert np.isnan(measure.per_class()).tolist() == [False] * 4 + [True]


def test_accuracy_is_that_of_repeated_images() -> None:
    correct = np.arange(12) % 5 < 2
    expected = [100 * np.repeat(correct, times).mean() for times in TIMES]
    assert Accuracy(correct).figures(TIMES) == pytest.approx(expected)


@pytest.mark.parametrize(
    "measure",
    [
        Accuracy(np.arange(12) % 2 == 0, digest=digest_of("abcdef")),
        MeanIoU(np.arange(72).reshape(12, 2, 3), digest="x"),
        mean_ap(*coco_case(1, distinct=False), "segm"),
    ],
)
def test_files_give_the_measure_back(measure: Measure, tmp_path: Path) -> None:
    key = Key("task", "metric", "protocol", "10%", "../name", 3)
    save_outcome(tmp_path, key, measure)
    ((found, back),) = load_outcomes(tmp_path).items()
    assert found == key
    assert type(back) is type(measure) and back.digest == measure.digest != ""
    assert (back.figures(TIMES) == measure.figures(TIMES)).all()


def test_a_digest_tells_order_and_names() -> None:
    assert len({digest_of(names) for names in (["a", "b"], ["b", "a"], ["a"], ["ab"], [])}) == 5
    dataset, results = coco_case(1, distinct=False)
    assert isinstance(mean_ap(dataset, results, "bbox"), MeanAP)
    assert mean_ap(dataset, results, "bbox").digest == digest_of(image["id"] for image in dataset["images"])


def test_what_does_not_belong_together_is_refused() -> None:
    dataset, results = coco_case(1, distinct=False)
    with pytest.raises(ValueError, match="image_id 999.*files of one set"):
        mean_ap(dataset, [*results, results[0] | {"image_id": 999}], "bbox")
    with pytest.raises(ValueError, match="category_id 999"):
        mean_ap(dataset, [*results, results[0] | {"category_id": 999}], "bbox")
    with pytest.raises(ValueError, match="of 12 images have no instance"):
        mean_ap(dataset | {"annotations": []}, [], "bbox")
    with pytest.raises(ValueError, match="'7' is not an integer"):
        mean_ap(dataset | {"images": [{**dataset["images"][0], "id": "7"}]}, [], "bbox")
