"""Random ground truth and predictions with all that makes COCO's evaluation awkward.

Crowds, areas and scores on limits, equal scores, boxes without area, images without annotations or predictions,
categories without instances or in odd order, empty masks, more detections than count.
"""

import json

import numpy as np
import pycocotools.mask as mask_util
import torch

SCORES = np.array([0.1, 0.25, 0.5, 0.5, 0.75, 0.9], dtype=np.float32)  # few, so that many are equal


def random_box(rng, height, width):
    """x, y, w, h; a fifth of the sides are 0, 32 or 96 pixels, the limits of areas."""
    x, y = rng.uniform(0, width * 0.7), rng.uniform(0, height * 0.7)
    w, h = (rng.choice([0, 32, 96]) if rng.random() < 0.2 else rng.uniform(1, 60) for _ in range(2))
    return [float(x), float(y), float(min(w, width - x)), float(min(h, height - y))]


def run_lengths(mask):
    """Uncompressed, as crowds have them."""
    column_wise = np.concatenate([[0], mask.ravel(order="F"), [2]])
    edges = np.flatnonzero(column_wise[1:] != column_wise[:-1])
    counts = np.diff(np.concatenate([[0], edges]))
    return {"size": list(mask.shape), "counts": counts.tolist()}


def segmentation(rng, box, height, width, crowd):
    x, y, w, h = box
    if crowd:
        mask = np.zeros((height, width), dtype=np.uint8)
        mask[int(y) : int(y + h), int(x) : int(x + w)] = rng.random((int(y + h) - int(y), int(x + w) - int(x))) < 0.7
        return run_lengths(mask)
    corners = [[x, y, x + w, y, x + w, y + h, x + w / 3, y + h]]
    return corners + [[x, y, x + w / 2, y, x, y + h / 2]] * int(rng.random() < 0.2)


def random_dataset(seed, num_images=8, num_categories=4, crowds=0.2, first_id=1):
    """Ground truth in COCO's format."""
    rng = np.random.default_rng(seed)
    category_ids = np.sort(rng.permutation(np.arange(1, 3 * num_categories))[:num_categories])
    image_ids = rng.permutation(50)[:num_images]
    sizes = rng.integers(80, 160, (num_images, 2))
    annotations = []
    for image_id, (height, width) in zip(image_ids, sizes, strict=True):
        for _ in range(rng.choice([0, 1, 3, 8])):
            box = random_box(rng, height, width)
            crowd = bool(rng.random() < crowds)
            area = rng.choice([box[2] * box[3], 1024.0, 9216.0, 500.0])
            annotation = dict(id=len(annotations) + first_id, image_id=int(image_id), bbox=box, area=float(area))
            annotation["iscrowd"] = int(crowd)
            annotation["category_id"] = int(rng.choice(category_ids[:-1]))  # the last one has no instance
            annotation["segmentation"] = segmentation(rng, box, int(height), int(width), crowd)
            annotations.append(annotation | ({"ignore": 1} if rng.random() < 0.1 else {}))
    sized = zip(image_ids.tolist(), sizes.tolist(), strict=True)
    images = [dict(id=i, height=h, width=w, file_name=f"{i}.jpg") for i, (h, w) in sized]
    categories = [{"id": int(i), "name": f"c{i}"} for i in category_ids]
    return dict(info={}, licenses=[], images=images, categories=categories, annotations=annotations)


def random_samples(dataset, seed, most=12):
    """Predictions as a model gives them to a metric: one dict an image, masks as a bool tensor."""
    rng = np.random.default_rng(seed + 1000)
    samples = []
    for image in dataset["images"]:
        height, width = image["height"], image["width"]
        truths = [a for a in dataset["annotations"] if a["image_id"] == image["id"]]
        boxes, masks = [], []
        count = int(rng.choice([0, 2, most]))
        for _ in range(count):
            if truths and rng.random() < 0.7:
                box = np.array(truths[rng.integers(len(truths))]["bbox"]) + rng.normal(0, rng.choice([0, 3]), 4)
            else:
                box = np.array(random_box(rng, height, width))
            x, y, w, h = box
            boxes.append([x, y, x + max(w, 0), y + max(h, 0)])
            mask = np.zeros((height, width), dtype=bool)
            if rng.random() < 0.9:
                rows, columns = (slice(max(int(a), 0), max(int(a + b), 0)) for a, b in ((y, h), (x, w)))
                mask[rows, columns] = True
                mask &= rng.random(mask.shape) < rng.choice([0.8, 1.0])
            masks.append(mask)
        predicted = {
            "bboxes": torch.tensor(np.array(boxes).reshape(-1, 4), dtype=torch.float32),
            "scores": torch.tensor(rng.choice(SCORES, count)),
            "labels": torch.tensor(rng.integers(0, len(dataset["categories"]), count)),
            "masks": torch.tensor(np.array(masks).reshape(-1, height, width), dtype=torch.bool),
        }
        samples.append({"pred_instances": predicted, "img_id": image["id"], "ori_shape": (height, width)})
    return samples


def with_instances(sample, dataset):
    """The sample with its image's ground truth, as a dataset's ``instances``."""
    labels = {category["id"]: label for label, category in enumerate(dataset["categories"])}
    instances = []
    for annotation in dataset["annotations"]:
        if annotation["image_id"] == sample["img_id"]:
            x, y, w, h = annotation["bbox"]
            mask = annotation["segmentation"]
            if isinstance(mask, dict):
                mask = mask_util.frPyObjects(mask, *mask["size"])
            instance = dict(bbox=[x, y, x + w, y + h], bbox_label=labels[annotation["category_id"]], mask=mask)
            instances.append(instance | dict(ignore_flag=annotation["iscrowd"]))
    return {**sample, "instances": instances}


def write(dataset, path):
    path.write_text(json.dumps(dataset))
    return str(path)


def random_case(seed, folder, most=12, **options):
    """A dataset, predictions, and the path of the dataset's file."""
    dataset = random_dataset(seed, **options)
    return dataset, random_samples(dataset, seed, most), write(dataset, folder / "gt.json")


def classes_of(dataset):
    return [category["name"] for category in dataset["categories"]]


def run_metric(metric, samples, classes, batch_size=3):
    """Feeds a metric in batches, as an evaluation loop does."""
    metric.dataset_meta = {"classes": classes}
    for start in range(0, len(samples), batch_size):
        batch = samples[start : start + batch_size]
        metric.process({}, [{**s, "pred_instances": dict(s["pred_instances"])} for s in batch])
    return metric.evaluate(len(samples))
