"""How often the card's 95 % intervals hold a true difference that is known, because all of the population is.

The population: sample scenes, each judged by frozen nets of one pre-training (random, early, late) with many draws of a
few labelled scenes. Three probes by soft nearest neighbours give the outcomes: the class of the largest object (top-1),
the classes of patches (mIoU), and the classes of boxes on, beside and off the objects (box mAP). A card draws 100
scenes and some of the draws of labels, and compares two nets; its interval should hold the population's difference.

Two pairs: late and random, which differ; and two random nets, whose scenes are drawn so that both are equally good.
"""

import itertools
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torchvision.ops import batched_nms, box_iou, roi_align

from benchmarks.measure import Row
from mst_transfer.card.measures import Accuracy, MeanAP, MeanIoU, Measure, mean_ap
from mst_transfer.card.statistics import compare
from mst_transfer.configs.read import read_config
from mst_transfer.datasets.sample.scenes import CLASSES, OBJECT_CLASSES, draw_scene, scene_generator
from mst_transfer.datasets.sample.write import SampleDataRequest, make_sample_data
from mst_transfer.probes.backbones import FrozenBackbone, load_frozen

ROOT = Path(__file__).resolve().parent.parent
CONFIG = "pretrain/configs/mst_vit_sample.py"
SEEDS = (1, 2, 3, 5)
NAMES = ("top-1", "mIoU", "box mAP")
TEMPERATURE = 0.02  # of the votes
BACKGROUND = len(OBJECT_CLASSES)
STRIDE = 4  # of the label maps that mIoU is counted on

_shared: tuple[Any, ...] = ()

Outcomes = dict[str, list[Measure]]  # name of the measure → one a draw of labels, on all scenes


@dataclass(frozen=True)
class Sizes:
    """Of a population and of its cards."""

    scenes: int = 1200
    pool: int = 300  # labelled scenes
    labelled: int = 16  # of them, a draw
    draws: int = 40
    cards: int = 1000
    images: int = 100  # of a card
    early: int = 3  # epoch


@dataclass(frozen=True)
class World:
    """Scenes and the boxes to classify in them."""

    images: Tensor  # uint8 [n, 3, H, H]
    semantic: Tensor  # int64 [n, h, h], every 4th pixel of every 4th row
    boxes: Tensor  # [P, 5]: scene, then corners in pixels
    labels: Tensor  # int64 [P]: the object that the box is on, or BACKGROUND
    largest: Tensor  # int64 [n]: the box of the largest object, as it is
    truth: dict[str, Any]  # COCO annotations


def draw_world(split: str, count: int) -> World:
    """The first scenes of a split, with boxes on, near and far from each object."""
    drawn_scenes = (draw_scene(scene_generator(0, split, index)) for index in itertools.count())
    scenes = list(itertools.islice((scene for scene in drawn_scenes if len(scene.masks)), count))
    size = scenes[0].image.shape[0]
    boxes, labels, largest, annotations = [], [], [], []
    for number, scene in enumerate(scenes):
        random = np.random.default_rng((number, count))
        corners = np.array(
            [[np.flatnonzero(m.any(axis))[end] for end in (0, -1) for axis in (0, 1)] for m in scene.masks]
        )
        corners = corners.reshape(-1, 4) + [0, 0, 1, 1]
        sides = np.tile(corners[:, 2:] - corners[:, :2], 2)
        near = np.concatenate([corners + sides * random.normal(0, spread, sides.shape) for spread in (0.06, 0.12)])
        start, extent = random.uniform(0, 0.8, (6, 2)) * size, random.uniform(0.15, 0.6, (6, 2)) * size
        drawn = np.concatenate([corners, near, np.hstack([start, start + extent])]).clip(0, size)
        overlap = box_iou(torch.tensor(drawn), torch.tensor(corners).double()).numpy()
        here = np.array([*scene.labels, BACKGROUND])
        chosen = np.where(overlap.max(axis=1) >= 0.5, overlap.argmax(axis=1), len(corners))
        largest.append(sum(map(len, boxes)) + int(np.argmax([mask.sum() for mask in scene.masks])))
        boxes.append(np.insert(drawn, 0, number, axis=1))
        labels.append(here[chosen])
        for (left, top, right, bottom), label in zip(corners.tolist(), scene.labels, strict=True):
            box = [left, top, right - left, bottom - top]
            annotations.append(dict(image_id=number, category_id=label + 1, bbox=box, area=box[2] * box[3], iscrowd=0))
    truth = dict(
        images=[dict(id=number, height=size, width=size) for number in range(count)],
        categories=[dict(id=label + 1, name=name) for label, name in enumerate(OBJECT_CLASSES)],
        annotations=[dict(id=number, **annotation) for number, annotation in enumerate(annotations, 1)],
    )
    return World(
        torch.from_numpy(np.stack([scene.image for scene in scenes]).transpose(0, 3, 1, 2).copy()),
        torch.from_numpy(np.stack([scene.semantic[::STRIDE, ::STRIDE] for scene in scenes])).long(),
        torch.from_numpy(np.concatenate(boxes)).float(),
        torch.from_numpy(np.concatenate(labels)).long(),
        torch.tensor(largest),
        truth,
    )


@torch.no_grad()
def features(frozen: FrozenBackbone, world: World) -> tuple[Tensor, Tensor]:
    """Tokens ``[n, h, w, D]`` and what boxes hold of them ``[P, 4 D]``."""
    parts = []
    for views in world.images.split(100):
        tokens = frozen.model.forward_features(frozen.normalise(views))[:, frozen.model.num_prefix_tokens :]
        parts.append(tokens.unflatten(1, (int(tokens.shape[1] ** 0.5), -1)))
    maps = torch.cat(parts)
    scale = maps.shape[1] / world.images.shape[-1]
    held = roi_align(maps.permute(0, 3, 1, 2).contiguous(), world.boxes, 2, scale, sampling_ratio=2)
    return maps, held.flatten(1)


def centred(known: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
    """Both without the mean of the first, and of length 1: untrained nets give every patch much the same token."""
    mean = known.flatten(0, -2).mean(dim=0)
    return F.normalize(known - mean, dim=-1), F.normalize(seen - mean, dim=-1)


def vote(queries: Tensor, keys: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Shares ``[Q, C]`` of the classes of the keys, each weighted by exp(cosine / temperature)."""
    classes = F.one_hot(labels, num_classes).float()
    return torch.cat([(part @ keys.T / TEMPERATURE).softmax(dim=1) @ classes for part in queries.split(4096)])


def judge(
    train: World, known: tuple[Tensor, Tensor], world: World, seen: tuple[Tensor, Tensor], chosen: Tensor
) -> list[Measure]:
    """The three outcomes, in the order of NAMES, of one net on all scenes with these labelled scenes."""
    side, num_classes = seen[0].shape[1], len(CLASSES)
    middle = ((torch.arange(side) + 0.5) * train.semantic.shape[1] / side).long()
    patches = train.semantic[chosen][:, middle][:, :, middle]
    scores = vote(seen[0].flatten(0, 2), known[0][chosen].flatten(0, 2), patches.flatten(), num_classes)
    scores = scores.reshape(-1, side, side, num_classes).permute(0, 3, 1, 2)
    found = F.one_hot(F.interpolate(scores, world.semantic.shape[1:], mode="bilinear").argmax(dim=1), num_classes)
    true = F.one_hot(world.semantic, num_classes)
    counts = torch.stack([part.sum(dim=(1, 2)) for part in (found & true, found, true)], dim=2)

    rows = torch.isin(train.boxes[:, 0].long(), chosen)
    shares = vote(seen[1], known[1][rows], train.labels[rows], BACKGROUND + 1)[:, :BACKGROUND]
    correct = shares[world.largest].argmax(dim=1) == world.labels[world.largest]

    box, label = (shares > 0.1).nonzero().T
    image, corners, score = world.boxes[box, 0].long(), world.boxes[box, 1:], shares[box, label]
    kept = batched_nms(corners, score, image * BACKGROUND + label, 0.5)
    sized = torch.cat([corners[:, :2], corners[:, 2:] - corners[:, :2]], dim=1)
    columns = zip(*(part[kept].tolist() for part in (image, label + 1, sized, score)), strict=True)
    results = [dict(image_id=i, category_id=c, bbox=box, score=score) for i, c, box, score in columns]
    return [Accuracy(correct.numpy()), MeanIoU(counts.numpy()), mean_ap(world.truth, results, "bbox")]


def judge_often(frozen: FrozenBackbone, train: World, world: World, sizes: Sizes) -> Outcomes:
    """The outcomes of one net for all draws of labels, which are the same for every net."""
    known, seen = zip(*map(centred, features(frozen, train), features(frozen, world)), strict=True)
    orders = [np.random.default_rng(draw).permutation(sizes.pool) for draw in range(sizes.draws)]
    judged = [judge(train, known, world, seen, torch.from_numpy(order[: sizes.labelled])) for order in orders]
    return {name: list(measures) for name, measures in zip(NAMES, zip(*judged, strict=True), strict=True)}


def take(measure: Measure, images: NDArray[np.int64]) -> Measure:
    """The outcome on these images, which may repeat."""
    outcomes = measure.outcomes[images]
    if not isinstance(measure, MeanAP):
        return replace(measure, outcomes=outcomes)
    by_image = np.argsort(measure.image, kind="stable")
    first = np.searchsorted(measure.image[by_image], np.arange(measure.num_images + 1))
    rows = [by_image[first[image] : first[image + 1]] for image in images]
    numbers, rows = np.repeat(np.arange(len(images)), [len(part) for part in rows]), np.concatenate(rows)
    order = np.argsort(rows, kind="stable")  # the population's own: by category, then score
    rows = rows[order]
    return MeanAP(outcomes, measure.category[rows], numbers[order], measure.state[rows])


def true_difference(a: Sequence[Measure], b: Sequence[Measure], times: NDArray) -> float:
    """Of the whole population, each of its scenes as often as ``times`` ``[n]`` says."""
    return float(np.mean([x.figures(times[None]) - y.figures(times[None]) for x, y in zip(a, b, strict=True)]))


def equal_times(a: Sequence[Measure], b: Sequence[Measure]) -> NDArray[np.int64]:
    """How often to count each scene so that two nets are equally good: more often where the worse one is better."""
    count = a[0].num_images
    random = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), 400)
    figures = np.mean([x.figures(random) - y.figures(random) for x, y in zip(a[:8], b[:8], strict=True)], axis=0)
    pull = (random - 1.0).T @ (figures - figures.mean()) / len(random)  # [n], how much a scene favours a

    def times(strength: float) -> NDArray[np.int64]:
        shares = np.exp(-strength * pull / pull.std())
        return np.diff(np.floor(np.cumsum(shares) / shares.sum() * 2 * count + 0.5), prepend=0).astype(np.int64)

    low, high = -3.0, 3.0
    for _ in range(14):
        middle = (low + high) / 2
        low, high = (middle, high) if true_difference(a, b, times(middle)) > 0 else (low, middle)
    return times((low + high) / 2)


def one_card(
    card: int, a: Sequence[Measure], b: Sequence[Measure], population: NDArray[np.int64], work: str, sizes: Sizes
) -> list[tuple[float, float]]:
    """Both ends of the interval that a card of some images gives, for each number of seeds."""
    random = np.random.default_rng((card, len(work)))
    images, draws = random.choice(population, sizes.images), random.choice(sizes.draws, max(SEEDS))
    ours, theirs = ([take(measures[draw], images) for draw in draws] for measures in (a, b))
    differences = [compare(ours[:seeds], theirs[:seeds]) for seeds in SEEDS]
    return [(difference.low, difference.high) for difference in differences]


def _share(*arguments: Any) -> None:
    """Keeps in a process what all of its cards are drawn from."""
    global _shared
    _shared = arguments
    torch.set_num_threads(1)


def _one_card(card: int) -> list[tuple[float, float]]:
    return one_card(card, *_shared)


def coverage(work: str, a: Sequence[Measure], b: Sequence[Measure], times: NDArray, sizes: Sizes) -> list[Row]:
    """One row for each number of seeds; cards are drawn by as many processes as torch has threads."""
    true, population = true_difference(a, b, times), np.repeat(np.arange(len(times)), times)
    started = dict(mp_context=get_context("forkserver"), initializer=_share, initargs=(a, b, population, work, sizes))
    with ProcessPoolExecutor(torch.get_num_threads(), **started) as pool:
        ends = np.array(list(pool.map(_one_card, range(sizes.cards))))  # [cards, S, 2]
    rows = []
    for number, seeds in enumerate(SEEDS):
        low, high = ends[:, number].T
        held = (low <= true) & (true <= high)
        note = f"true difference {true:.2f}, median half width {np.median(high - low) / 2:.1f}"
        label = f"{work}, {seeds} seed{'s' * (seeds > 1)}"
        rows.append(Row(label, "", "covered", None, 100 * float(held.mean()), "%", None, None, note=note))
    return rows


def nets(sizes: Sizes, quick: bool) -> dict[str, FrozenBackbone]:
    """``random``, ``other``, random too, and of one pre-training ``early`` and ``late``; quick: without the latter."""
    config, _ = read_config(CONFIG)
    options = {key: value for key, value in config.model.backbone.items() if key not in ("arch", "drop_path_rate")}
    untrained = (("random", 0), ("other", 1))
    found = {
        name: load_frozen("random", arch=config.model.backbone.arch, arch_kwargs=options, seed=seed)[0]
        for name, seed in untrained
    }
    if quick:
        return found
    with tempfile.TemporaryDirectory() as folder:
        make_sample_data(Path(folder) / "sample", SampleDataRequest(seed=1))
        command = [sys.executable, "tools/pretrain.py", CONFIG, "--work-dir", f"{folder}/run", "--cfg-options"]
        command += ["default_hooks.checkpoint.interval=1", "default_hooks.checkpoint.max_keep_ckpts=-1"]
        command += ["train_cfg.max_epochs=26", "optim_wrapper.dtype=None"]  # as in docs/card_statistics.md
        subprocess.run(command, cwd=ROOT, env={**os.environ, "MST_DATA_ROOT": folder}, stdout=sys.stderr, check=True)
        files = {"early": f"epoch_{sizes.early}_teacher.safetensors", "late": "teacher.safetensors"}
        return found | {name: load_frozen(f"{folder}/run/{file}")[0] for name, file in files.items()}


def run(quick: bool = False) -> list[Row]:
    """Figures of all nets, then one row for each measure, pair and number of seeds."""
    sizes = Sizes(scenes=60, pool=24, labelled=8, draws=6, cards=10, images=40) if quick else Sizes()
    train, world = draw_world("cityscapes/train", sizes.pool), draw_world("cityscapes/val", sizes.scenes)
    judged = {name: judge_often(frozen, train, world, sizes) for name, frozen in nets(sizes, quick).items()}
    once, rows = np.ones(sizes.scenes, dtype=np.int64), []
    for name in NAMES:
        for net, outcomes in judged.items():
            figures = np.concatenate([measure.figures(once[None]) for measure in outcomes[name]])
            note = f"standard deviation over draws of {sizes.labelled} labelled scenes {figures.std():.1f}"
            rows.append(Row(f"{name} of {net}", "", "mean", None, float(figures.mean()), "%", None, None, note=note))
        late, random, other = (judged.get(net, judged["random"])[name] for net in ("late", "random", "other"))
        pairs = {"equal": (random, other, equal_times(random, other))}
        pairs |= {} if quick else {"late - random": (late, random, once)}
        for pair, (a, b, times) in pairs.items():
            rows += coverage(f"{name}, {pair}", a, b, times, sizes)
    return rows
