"""DINO's k-NN and linear protocols, from a checkpoint and a folder of labelled images to top-1."""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial

import torch
from mmengine.dist import get_rank, get_world_size, is_main_process
from torch import Tensor

from mst_transfer.configs.keys import parse_cfg_options
from mst_transfer.probes.attention import token_grid
from mst_transfer.probes.backbones import FrozenBackbone, load_frozen
from mst_transfer.probes.features import (
    FeatureFunction,
    batch_features,
    check_features,
    extract_features,
    num_feature_blocks,
)
from mst_transfer.probes.knn import check_k, knn_accuracy
from mst_transfer.probes.labelled_images import LabelledImages, load, open_pair
from mst_transfer.probes.linear import Batches, LinearProbes, cached_batches, split_held_out, train_linear
from mst_transfer.probes.monitors import effective_rank
from mst_transfer.runs.progress import Progress

DEFAULT_BLOCKS = 4  # DINO's for ViT-S


def held_out_images(args: argparse.Namespace, num_images: int) -> tuple[Tensor, Tensor]:
    """Indices of the images to train on, and of those that choose among several learning rates: some of both."""
    if len(args.lr) == 1:
        return split_held_out(num_images, 0.0, args.seed)
    kept, held_out = split_held_out(num_images, min(max(args.held_out, 0.0), 1.0), args.seed)
    if not len(kept) or not len(held_out):
        raise ValueError(
            f"--held-out {args.held_out:g} of {num_images} training images is {len(held_out)}: to choose among --lr "
            f"{' '.join(map(str, args.lr))} some must be held out and some left. Give another share, or one --lr"
        )
    return kept, held_out


def open_backbone(args: argparse.Namespace) -> FrozenBackbone:
    """Loads ``args.checkpoint``, ready for views of ``args.size``; prints what was loaded."""
    frozen, report = load_frozen(
        args.checkpoint,
        role=args.role,
        arch=args.arch,
        arch_kwargs=parse_cfg_options(args.arch_options, "--arch-options"),
        device=torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else "cpu",
        dtype=None if args.dtype == "float32" else getattr(torch, args.dtype),
        mean=args.mean,
        std=args.std,
        seed=args.seed,
    )
    frozen.img_size = args.size or frozen.img_size
    token_grid(frozen.model, frozen.img_size, frozen.img_size)
    if is_main_process():
        print(report)
    return frozen


def extractor(args: argparse.Namespace, frozen: FrozenBackbone) -> Callable[..., tuple[Tensor, Tensor]]:
    """``extract_features`` with the options of the command line."""
    return partial(extract_features, batch_size=args.batch_size, num_workers=args.num_workers, device=frozen.device)


def run_knn(args: argparse.Namespace) -> dict:
    """Measures top-1 for each k, and the effective rank of the validation features."""
    frozen = open_backbone(args)
    train, val = open_pair(args.data / "train", args.data / "val", frozen.img_size, args.resize)
    check_k(args.k, len(train))
    extract, function = extractor(args, frozen), frozen.features()
    votes, queries = extract(function, train, title="train:"), extract(function, val, title="val:")
    top1 = knn_accuracy(*votes, *queries, args.k, args.temperature, device=frozen.device)
    return {
        "protocol": "knn",
        "normalisation": asdict(frozen.normalisation),
        "top1": _rounded(top1),
        "effective_rank": round(effective_rank(queries[0]), 2),
    }


def random_view_batches(
    args: argparse.Namespace, function: FeatureFunction, images: LabelledImages, device: torch.device, width: int
) -> Batches:
    """Batches of features of random views, computed anew each epoch; each process has its share.

    A step takes the next ``batch_size`` x processes images of the epoch's order, whatever the number of processes.
    Nothing is padded: of an epoch's last step a process may have fewer images than another, or none.
    """
    rank, world = get_rank(), get_world_size()

    def batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        images.set_epoch(epoch)
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(args.seed + epoch))
        steps = [step[rank::world].tolist() for step in order.split(args.batch_size * world)]
        for views, labels, _ in load(images, args.num_workers, batch_sampler=[step for step in steps if step]):
            yield batch_features(function, views, device), labels
        if not steps[-1]:
            yield torch.empty(0, width), torch.empty(0, dtype=torch.int64)

    return batches


def run_linear(args: argparse.Namespace) -> dict:
    """Measures top-1 of a linear classifier; the learning rate is chosen on held-out training images."""
    frozen = open_backbone(args)
    blocks = args.blocks or min(DEFAULT_BLOCKS, num_feature_blocks(frozen.model))
    check_features(frozen.model, blocks, args.average_patches)
    train, val = open_pair(args.data / "train", args.data / "val", frozen.img_size, args.resize)
    kept, held_out = held_out_images(args, len(train))
    extract, function = extractor(args, frozen), frozen.features(blocks, args.average_patches)
    val_set = extract(function, val, title="val:")
    width, batch, held = val_set[0].shape[1], args.batch_size, None
    if args.cache:
        features, labels = extract(function, train, title="train:")
        batches = cached_batches(features[kept], labels[kept], batch, args.seed)
        if len(held_out):
            held = features[held_out], labels[held_out]
    else:
        random_views = LabelledImages(args.data / "train", frozen.img_size, augment=True, seed=args.seed)
        batches = random_view_batches(args, function, random_views.select(kept.tolist()), frozen.device, width)
        if len(held_out):
            held = extract(function, train.select(held_out.tolist()), title="held out:")
        batch *= get_world_size()
    probes = LinearProbes(
        width, len(train.classes), args.lr, batch, args.epochs, args.seed, sharded=not args.cache, device=frozen.device
    )
    progress = Progress("epoch", args.epochs)
    result = train_linear(
        batches,
        probes,
        val_set,
        held,
        lambda epoch, losses: progress(epoch + 1, f", losses {', '.join(f'{loss:.3f}' for loss in losses.tolist())}"),
    )
    return {
        "protocol": "linear",
        "normalisation": asdict(frozen.normalisation),
        "blocks": blocks,
        "top1": round(result.top1, 3),
        "lr": result.lr,
        "held_out": _rounded(result.held_out),
        "top1_by_lr": _rounded(result.top1_by_lr),
    }


def _rounded(accuracies: dict) -> dict[str, float]:
    return {str(key): round(value, 3) for key, value in accuracies.items()}
