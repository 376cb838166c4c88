"""The quick COCO metric equals mmdet's on pycocotools: figures, files and arrays, on every backend."""

import copy
import json
import re
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.evaluation.metrics import CocoMetric as MMDetCocoMetric
from mmengine.logging import MessageHub
from mmengine.registry import METRICS as ROOT
from pycocotools.cocoeval import COCOeval
from random_coco import classes_of, random_case, random_dataset, random_samples, run_metric, with_instances, write

from mst_transfer.evaluation.coco_metric import BACKEND_KEY, IMAGES_KEY, METRIC_NAMES, CocoMetric, category_precisions
from mst_transfer.evaluation.mask_encoding import encode_masks

TWELVE = list(METRIC_NAMES)
ALL = dict(metric=["bbox", "segm"], metric_items=TWELVE, classwise=True)


@pytest.fixture(params=["hotcoco", "pycocotools"])
def backend(request):
    return request.param


def both(path, samples, dataset, backend, **options):
    """Figures of mmdet's metric and of ours on the same predictions."""
    names = classes_of(dataset)
    theirs = run_metric(MMDetCocoMetric(path, **copy.deepcopy(options)), samples, names)
    return theirs, run_metric(CocoMetric(path, backend=backend, **options), samples, names)


def assert_same(theirs, ours):
    theirs, ours = as_mmdet_names(theirs), as_mmdet_names(ours)
    assert list(ours) == list(theirs)
    np.testing.assert_array_equal(list(ours.values()), list(theirs.values()))  # NaN equals NaN


def as_mmdet_names(figures):
    """Without the categories' figures of boxes, which mmdet writes over with those of masks."""
    if not any(name.startswith("coco/segm_") for name in figures):
        return figures
    kept = {name: value for name, value in figures.items() if not re.match(r"coco/bbox_.*_precision$", name)}
    return dict(sorted((re.sub(r"/segm_(.*_precision)$", r"/\1", name), value) for name, value in kept.items()))


def test_figures_of_categories_are_those_of_each_metric_alone(backend, tmp_path):
    dataset, samples, path = random_case(4, tmp_path)
    names = classes_of(dataset)
    ours = run_metric(CocoMetric(path, ["bbox", "segm"], backend=backend, classwise=True), samples, names)
    for metric in ("bbox", "segm"):
        alone = run_metric(MMDetCocoMetric(path, metric, classwise=True), samples, names)
        for name in names:
            np.testing.assert_equal(ours[f"coco/{metric}_{name}_precision"], alone[f"coco/{name}_precision"])
    boxes, masks = ([ours[f"coco/{metric}_{name}_precision"] for name in names] for metric in ("bbox", "segm"))
    assert boxes != masks


def other_scores(_, samples):
    for sample in samples:
        sample["pred_instances"]["mask_scores"] = 1 - sample["pred_instances"]["scores"]


def encoded(_, samples):
    for sample in samples:
        sample["pred_instances"]["masks"] = list(encode_masks(sample["pred_instances"]["masks"]))


def named_by_texts(dataset, samples):
    places = [(image, "id") for image in dataset["images"]] + [(sample, "img_id") for sample in samples]
    for item, key in (*places, *((annotation, "image_id") for annotation in dataset["annotations"])):
        item[key] = f"image {item[key]}"


# seeds, options of the data, what is done to them, options of the metric
CASES = {
    "all figures": (range(8), {}, None, [ALL]),
    "more detections than count": (
        range(4),
        dict(most=60, num_images=3, num_categories=2),
        None,
        [ALL | dict(proposal_nums=numbers) for numbers in ((5, 10, 30), (100, 3, 20), (1, 10, 100))],
    ),
    "proposals of any category": (
        range(4),
        {},
        None,
        [dict(metric="proposal", metric_items=TWELVE), dict(metric="proposal")],
    ),
    "no annotation at all": ([0], {}, lambda dataset, _: dataset["annotations"].clear(), [ALL]),
    "other scores of masks": ([5], {}, other_scores, [ALL]),
    "masks that are encoded": ([6], {}, encoded, [ALL]),
    "ids that are texts": ([4], {}, named_by_texts, [ALL]),  # hotcoco cannot: falls back on pycocotools
}


@pytest.mark.parametrize("name", CASES)
def test_figures_equal_mmdets(name, backend, tmp_path):
    seeds, options, change, metrics = CASES[name]
    for seed in seeds:
        dataset, samples, path = random_case(seed, tmp_path, **options)
        if change:
            change(dataset, samples)
            write(dataset, Path(path))
        for metric in metrics:
            assert_same(*both(path, samples, dataset, backend, **metric))


@pytest.mark.parametrize("thresholds", [[0.5], [0.5, 0.75, 0.85], [0.3, 0.6, 0.9]])
def test_other_thresholds(thresholds, backend, tmp_path):
    dataset, samples, path = random_case(3, tmp_path)
    options = dict(metric=["bbox", "segm"], metric_items=TWELVE)
    names = classes_of(dataset)
    # With a list mmdet loses its thresholds 0.5 and 0.75: an array is what pycocotools expects.
    theirs = run_metric(MMDetCocoMetric(path, iou_thrs=np.array(thresholds), **options), samples, names)
    for given in (thresholds, tuple(thresholds)):
        assert_same(theirs, run_metric(CocoMetric(path, iou_thrs=given, backend=backend, **options), samples, names))


def test_a_subset_of_the_classes(backend, tmp_path):
    for seed in range(4):
        dataset, samples, path = random_case(seed, tmp_path, num_categories=5)
        chosen = {**dataset, "categories": dataset["categories"][1:4]}
        for sample in samples:
            sample["pred_instances"]["labels"] %= 3
        for metric in ("bbox", "segm", "proposal"):
            assert_same(*both(path, samples, chosen, backend, metric=metric, metric_items=TWELVE))


def test_annotation_ids_from_zero(backend, tmp_path):
    """pycocotools, and so mmdet, takes a match with the annotation of id 0 for none; ours are those of ids from 1."""
    for seed in (4, 22):  # of the first 30, those whose first annotation is found
        from_one, from_zero = random_dataset(seed), random_dataset(seed, first_id=0)
        samples, names = random_samples(from_one, seed), classes_of(from_one)
        expected, ours = both(write(from_one, tmp_path / "one.json"), samples, from_one, backend, **ALL)
        assert_same(expected, ours)
        path = write(from_zero, tmp_path / "zero.json")
        assert_same(expected, run_metric(CocoMetric(path, backend=backend, **ALL), samples, names))
        mmdets = run_metric(MMDetCocoMetric(path, **ALL), samples, names)
        assert mmdets["coco/bbox_mAP"] < expected["coco/bbox_mAP"], f"seed {seed} shows nothing"


def test_the_figures_of_a_category():
    """Against sums written out; all numbers of the array are different."""
    thresholds, categories, levels = [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95], [4, 9, 11], 7
    precision = np.random.default_rng(0).random((len(thresholds), levels, len(categories), 4, 3))
    precision[:, 4:, 0] = 0  # recall that is not reached
    precision[:, :, 1, 2] = -1  # nothing of medium area
    run = COCOeval(iouType="bbox")
    run.eval, run.params.iouThrs, run.params.catIds = dict(precision=precision), np.array(thresholds), categories
    everything = [(thresholds, 0), ([0.5], 0), ([0.75], 0), (thresholds, 1), (thresholds, 2), (thresholds, 3)]
    for place, category in enumerate(categories):
        expected = []
        for chosen, area in everything:
            pairs = [(thresholds.index(t), level) for t in chosen for level in range(levels)]
            values = [precision[t, level, place, area, 2] for t, level in pairs]
            expected.append(float("nan") if (place, area) == (1, 2) else sum(values) / len(values))
        np.testing.assert_allclose(category_precisions(run, category), expected)


def test_ground_truth_from_the_samples(backend):
    for seed in range(4):
        dataset = random_dataset(seed)
        samples = [with_instances(sample, dataset) for sample in random_samples(dataset, seed)]
        assert_same(*both(None, samples, dataset, backend, **ALL))


def without_predictions(samples):
    nothing = [{name: values[:0] for name, values in sample["pred_instances"].items()} for sample in samples]
    return [{**sample, "pred_instances": empty} for sample, empty in zip(samples, nothing, strict=True)]


@pytest.mark.parametrize("metric", [["bbox", "segm"], "proposal"])
def test_no_prediction_at_all(metric, backend, tmp_path):
    """As if all that was predicted were wrong: 0 under every name where there is something to find, else -1."""
    dataset = random_dataset(0)
    samples = random_samples(dataset, 0)
    for sample in samples:  # a box of one pixel at the margin, which nothing is
        count = len(sample["pred_instances"]["labels"])
        boxes = torch.tensor([[0.0, 0, 1, 1]]).repeat(count, 1)
        masks = torch.zeros_like(sample["pred_instances"]["masks"])
        masks[:, :1, :1] = True
        sample["pred_instances"] |= dict(bboxes=boxes, masks=masks)
    options = dict(metric=metric, metric_items=TWELVE, classwise=True)
    path = write(dataset, tmp_path / "gt.json")
    wrong, names = run_metric(MMDetCocoMetric(path, **options), samples, classes_of(dataset)), classes_of(dataset)
    ours = run_metric(CocoMetric(path, backend=backend, **options), without_predictions(samples), names)
    assert_same(wrong, ours)
    assert 0 in ours.values() and {value for value in ours.values() if value == value} <= {0, -1}
    path = write({**dataset, "annotations": []}, tmp_path / "empty.json")
    ours = run_metric(CocoMetric(path, backend=backend, **options), without_predictions(samples), names)
    assert len(as_mmdet_names(ours)) == len(wrong) and {value for value in ours.values() if value == value} == {-1}


def test_images_that_were_not_predicted_on_do_not_count(backend, tmp_path):
    """The figures of three of eight images are those of a file of these three, and the number is said."""
    dataset = random_dataset(3)
    samples = random_samples(dataset, 3)
    some = [sample for sample in samples if len(sample["pred_instances"]["labels"])][:3]
    chosen = {sample["img_id"] for sample in some}
    subset = {
        **dataset,
        "images": [image for image in dataset["images"] if image["id"] in chosen],
        "annotations": [a for a in dataset["annotations"] if a["image_id"] in chosen],
    }
    expected = run_metric(MMDetCocoMetric(write(subset, tmp_path / "some.json"), **ALL), some, classes_of(dataset))
    path = write(dataset, tmp_path / "all.json")
    metric = CocoMetric(path, backend=backend, **ALL)
    assert_same(expected, run_metric(metric, some, classes_of(dataset)))
    hub = MessageHub.get_current_instance()
    assert hub.get_info(IMAGES_KEY) == dict(evaluated=3, annotated=8)
    mmdets = run_metric(MMDetCocoMetric(path, **ALL), samples, classes_of(dataset))
    assert_same(mmdets, run_metric(metric, samples, classes_of(dataset)))  # the same metric, of all images
    assert hub.get_info(IMAGES_KEY) == dict(evaluated=8, annotated=8)


def test_files_equal_mmdets(tmp_path):
    dataset = random_dataset(7)
    samples = [with_instances(sample, dataset) for sample in random_samples(dataset, 7)]
    names = classes_of(dataset)
    path = write(dataset, tmp_path / "gt.json")
    for case, file in (("file", path), ("samples", None)):
        for kind, cls in (("theirs", MMDetCocoMetric), ("ours", CocoMetric)):
            options = dict(metric=["bbox", "segm"], outfile_prefix=str(tmp_path / f"{kind}_{case}"))
            assert run_metric(cls(file, format_only=True, **options), samples, names) == {}
        theirs = run_metric(MMDetCocoMetric(file, metric=["bbox", "segm"]), samples, names)
        assert_same(theirs, run_metric(CocoMetric(file, **options), samples, names))  # files and figures together
    for name in ("file.bbox", "file.segm", "samples.bbox", "samples.segm"):
        assert (tmp_path / f"ours_{name}.json").read_bytes() == (tmp_path / f"theirs_{name}.json").read_bytes()
    ours, theirs = (json.loads((tmp_path / f"{kind}_samples.gt.json").read_text()) for kind in ("ours", "theirs"))
    for part in ("images", "categories", "annotations"):
        assert ours[part] == theirs[part]


def test_categories_of_a_file_in_another_order_than_their_ids(backend, tmp_path):
    """Each category's figure is its own; mmdet's table gives it to another one."""
    dataset = random_dataset(2, num_categories=4)
    samples = random_samples(dataset, 2, most=30)
    names = classes_of(dataset)
    options = dict(metric="bbox", classwise=True)
    path = write(dataset, tmp_path / "sorted.json")
    expected = run_metric(MMDetCocoMetric(path, **options), samples, names)
    order = [2, 0, 3, 1]
    turned = {**dataset, "categories": [dataset["categories"][index] for index in order]}
    for sample in samples:
        labels = sample["pred_instances"]["labels"]
        sample["pred_instances"]["labels"] = labels.new_tensor([order.index(int(label)) for label in labels])
    path = write(turned, tmp_path / "turned.json")
    ours = run_metric(CocoMetric(path, backend=backend, **options), samples, classes_of(turned))
    assert len(set(expected.values())) > 4
    np.testing.assert_equal(ours, expected)


def test_from_a_config_and_the_backend_is_named(tmp_path):
    dataset, samples, path = random_case(0, tmp_path)
    metric = ROOT.build(dict(type="mst_transfer.CocoMetric", ann_file=path))
    assert isinstance(metric, MMDetCocoMetric)
    run_metric(metric, samples, classes_of(dataset))
    assert MessageHub.get_current_instance().get_info(BACKEND_KEY) == f"hotcoco {version('hotcoco')}"


def test_refusals(tmp_path):
    dataset, samples, path = random_case(0, tmp_path)
    samples = [sample for sample in samples if len(sample["pred_instances"]["labels"])]
    names = classes_of(dataset)
    with pytest.raises(ValueError, match=f"1 images, such as id {samples[0]['img_id']}, .* more than once"):
        run_metric(CocoMetric(path), [*samples, samples[0]], names)
    with pytest.raises(ValueError, match="backend='fast': it must be one of .*'hotcoco', 'pycocotools'"):
        CocoMetric(path, backend="fast")
    with pytest.raises(ValueError, match="three numbers"):
        CocoMetric(path, proposal_nums=(1, 100))
    with pytest.raises(ValueError, match="take 'proposal'"):
        CocoMetric(path, metric="proposal_fast")
    with pytest.raises(KeyError, match="AR@1"):
        CocoMetric(path, metric_items=["AR@1"])
    with pytest.raises(KeyError, match="metric should be one of"):
        CocoMetric(path, metric="boxes")
    with pytest.raises(ValueError, match="999.*ann_file"):
        run_metric(CocoMetric(path), [{**samples[0], "img_id": 999}], names)
    predicted = samples[0]["pred_instances"]
    strange = {**predicted, "labels": predicted["labels"] * 0 + 9}
    with pytest.raises(ValueError, match="label 9 is predicted, but only 4"):
        run_metric(CocoMetric(path), [{**samples[0], "pred_instances": strange}], names)
    boxes_only = {name: values for name, values in predicted.items() if name != "masks"}
    with pytest.raises(KeyError, match="predicts no masks"):
        run_metric(CocoMetric(path, "segm"), [{**samples[0], "pred_instances": boxes_only}], names)


def test_real_annotations(backend, tmp_path, shared_data):
    dataset = json.loads((shared_data / "coco_mini" / "annotations" / "instances_val.json").read_text())
    crowded = {a["image_id"] for a in dataset["annotations"] if a["iscrowd"]}
    dataset["images"] = sorted(dataset["images"], key=lambda image: image["id"] not in crowded)[:10]
    chosen = {image["id"] for image in dataset["images"]}
    dataset["annotations"] = [a for a in dataset["annotations"] if a["image_id"] in chosen]
    samples = random_samples(dataset, 0)
    path = write(dataset, tmp_path / "gt.json")
    assert_same(*both(path, samples, dataset, backend, **ALL))
