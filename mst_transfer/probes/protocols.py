"""DINO's k-NN and linear protocols, from a checkpoint and a folder of labelled images to top-1."""

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict

import torch
from mmengine.dist import get_rank, get_world_size, is_main_process
from torch import Tensor
from torch.utils.data import DataLoader

from mst_transfer.checkpoint.normalisation import normalisation_of
from mst_transfer.configs.config_check import parse_cfg_options
from pretrain.backbones.swin import MaskedSwin
from pretrain.data.dataset import worker_init
from pretrain.evaluate.features import FeatureFunction, extract_features
from pretrain.evaluate.knn import check_k, knn_accuracy
from pretrain.evaluate.labelled_images import LabelledImages
from pretrain.evaluate.linear import LinearProbes, cached_batches, split_held_out, train_linear
from pretrain.evaluate.load import FrozenBackbone, load_frozen
from pretrain.evaluate.monitors import effective_rank

DEFAULT_BLOCKS = 4  # DINO's for ViT-S
DTYPES = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}


def feature_blocks(args: argparse.Namespace, frozen: FrozenBackbone) -> int:
    """Of how many last blocks the linear protocol takes the class tokens.

    Raises:
        ValueError: the backbone has no such features.
    """
    arch, most = frozen.backbone.arch, frozen.backbone.num_feature_blocks
    usual = min(DEFAULT_BLOCKS, most)
    if args.blocks is not None and args.blocks > most:
        raise ValueError(f"--blocks {args.blocks} must lie in 1 … {most} for this {arch}; without it: {usual}")
    if args.average_patches and isinstance(frozen.backbone, MaskedSwin):
        raise ValueError(f"--average-patches: the feature of {arch} is its tokens' average already; leave it out")
    return args.blocks or usual


def held_out_images(args: argparse.Namespace, num_images: int) -> tuple[Tensor, Tensor]:
    """Indices of the images to train on, and of those that choose among several learning rates.

    Raises:
        ValueError: none would be left for one of the two.
    """
    if len(args.lr) == 1:
        return split_held_out(num_images, 0.0, args.seed)
    kept, held_out = split_held_out(num_images, min(max(args.held_out, 0.0), 1.0), args.seed)
    if not len(kept) or not len(held_out):
        raise ValueError(
            f"--held-out {args.held_out:g} of {num_images} training images is {len(held_out)}: to choose among --lr "
            f"{' '.join(map(str, args.lr))} some must be held out and some left. Give another share, or one --lr"
        )
    return kept, held_out


def open_images(args: argparse.Namespace, size: int) -> tuple[LabelledImages, LabelledImages]:
    """The two sets, with the same classes."""
    train, val = (LabelledImages(args.data / part, size, resize=args.resize) for part in ("train", "val"))
    if train.classes != val.classes:
        raise ValueError(f"the classes of train and val differ: {sorted(set(train.classes) ^ set(val.classes))[:5]}")
    return train, val


def view_size(args: argparse.Namespace, frozen: FrozenBackbone) -> int:
    """Side of the views in pixels; a ValueError if the backbone can't take it."""
    size = args.size or frozen.img_size
    frozen.backbone.num_patches(size, size)
    return size


def open_backbone(args: argparse.Namespace) -> FrozenBackbone:
    """From ``args.checkpoint``; prints what was loaded."""
    device = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else "cpu"
    options = parse_cfg_options(args.arch_options) if args.arch_options else None
    if args.checkpoint == "random":
        if args.arch is None:
            raise ValueError("'random' needs --arch, e.g. --arch vit_small_patch16_224")
        colours = normalisation_of(None, args.arch, args.mean, args.std)
        frozen, report = FrozenBackbone.random(args.arch, options or {}, args.seed, device, DTYPES[args.dtype], colours)
    else:
        frozen, report = load_frozen(
            args.checkpoint,
            role=args.role,
            arch=args.arch,
            arch_kwargs=options,
            device=device,
            dtype=DTYPES[args.dtype],
            mean=args.mean,
            std=args.std,
        )
    if is_main_process():
        print(report)
    return frozen


def run_knn(args: argparse.Namespace) -> dict:
    """Top-1 for each k, and the effective rank of the validation features."""
    frozen = open_backbone(args)
    train, val = open_images(args, view_size(args, frozen))
    check_k(args.k, len(train))
    options = dict(batch_size=args.batch_size, num_workers=args.num_workers, device=frozen.device)
    function = frozen.features()
    votes, vote_labels = extract_features(function, train, title="train", **options)
    queries, labels = extract_features(function, val, title="val", **options)
    top1 = knn_accuracy(votes, vote_labels, queries, labels, args.k, args.temperature, device=frozen.device)
    return {
        "protocol": "knn",
        "normalisation": asdict(frozen.normalisation),
        "top1": {str(k): round(value, 3) for k, value in top1.items()},
        "effective_rank": round(effective_rank(queries), 2),
    }


class _ShardedViews:
    """Batches of features of random views, computed anew each epoch; each process has its share.

    A step takes the next ``batch_size`` x processes images of the epoch's order, whatever the number of processes.
    Nothing is padded: of an epoch's last step a process may have fewer images than another, or none.

    Args:
        args: of the command line: ``batch_size``, ``num_workers``, ``seed``.
        function: of the backbone.
        images: with random views.
        device: of the backbone.
        width: D, of the features.
    """

    def __init__(
        self,
        args: argparse.Namespace,
        function: FeatureFunction,
        images: LabelledImages,
        device: torch.device,
        width: int,
    ) -> None:
        self.args, self.function, self.images, self.device, self.width = args, function, images, device, width

    def __call__(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        self.images.set_epoch(epoch)
        order = torch.randperm(len(self.images), generator=torch.Generator().manual_seed(self.args.seed + epoch))
        rank, world = get_rank(), get_world_size()
        steps = [step[rank::world].tolist() for step in order.split(self.args.batch_size * world)]
        loader = DataLoader(
            self.images,
            batch_sampler=[step for step in steps if step],
            num_workers=self.args.num_workers,
            worker_init_fn=worker_init,
        )
        for views, labels, _ in loader:
            with torch.no_grad():
                features = self.function(views.to(self.device, non_blocking=True)).float()
            yield features, labels
        if not steps[-1]:
            yield torch.empty(0, self.width), torch.empty(0, dtype=torch.int64)


def run_linear(args: argparse.Namespace) -> dict:
    """Top-1 of a linear classifier; the learning rate is chosen on held-out training images."""
    frozen = open_backbone(args)
    size = view_size(args, frozen)
    blocks = feature_blocks(args, frozen)
    train, val = open_images(args, size)
    kept, held_out = held_out_images(args, len(train))
    options = dict(batch_size=args.batch_size, num_workers=args.num_workers, device=frozen.device)
    function = frozen.features(blocks, args.average_patches)
    val_set = extract_features(function, val, title="val", **options)
    width, sharded = val_set[0].shape[1], not args.cache
    batch, held = args.batch_size, None
    if args.cache:
        features, labels = extract_features(function, train, title="train", **options)
        batches = cached_batches(features[kept], labels[kept], batch, args.seed)
        if len(held_out):
            held = features[held_out], labels[held_out]
    else:
        random_views = LabelledImages(args.data / "train", size, augment=True, seed=args.seed)
        batches = _ShardedViews(args, function, random_views.select(kept.tolist()), frozen.device, width)
        if len(held_out):
            held = extract_features(function, train.select(held_out.tolist()), title="held out", **options)
        batch *= get_world_size()
    probes = LinearProbes(
        width, len(train.classes), args.lr, batch, args.epochs, args.seed, sharded=sharded, device=frozen.device
    )
    result = train_linear(batches, probes, val_set, held, _progress(args.epochs))
    return {
        "protocol": "linear",
        "normalisation": asdict(frozen.normalisation),
        "blocks": blocks,
        "top1": round(result.top1, 3),
        "lr": result.lr,
        "held_out": {str(lr): round(value, 3) for lr, value in result.held_out.items()},
        "top1_by_lr": {str(lr): round(value, 3) for lr, value in result.top1_by_lr.items()},
    }


def _progress(epochs: int):
    start, last = time.monotonic(), [time.monotonic()]

    def after_epoch(epoch: int, losses: Tensor) -> None:
        now = time.monotonic()
        if is_main_process() and now - last[0] > 10:
            last[0] = now
            left = (now - start) / (epoch + 1) * (epochs - epoch - 1)
            shown = ", ".join(f"{loss:.3f}" for loss in losses.tolist())
            print(f"epoch {epoch + 1} of {epochs}, losses {shown}, {left:.0f} s left", file=sys.stderr)

    return after_epoch
