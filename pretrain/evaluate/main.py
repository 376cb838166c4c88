"""``eval_knn`` and ``eval_linear``: what a checkpoint's frozen features are worth on labelled images."""

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from mmengine.dist import get_rank, get_world_size, is_main_process
from torch import Tensor
from torch.utils.data import DataLoader, DistributedSampler

from mst_transfer.compat import launch
from mst_transfer.compat.config_check import parse_cfg_options
from pretrain.dataset import worker_init
from pretrain.evaluate.features import FeatureFunction, extract_features
from pretrain.evaluate.knn import knn_accuracy
from pretrain.evaluate.labelled_images import LabelledImages
from pretrain.evaluate.linear import LinearProbes, cached_batches, split_held_out, train_linear
from pretrain.evaluate.load import FrozenBackbone, load_frozen
from pretrain.evaluate.monitors import effective_rank

DTYPES = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}
LINEAR_LRS = (0.001, 0.01, 0.1, 1.0)


def build_parser(program: str) -> argparse.ArgumentParser:
    """Options; ``program`` is ``eval_knn`` or ``eval_linear``."""
    parser = argparse.ArgumentParser(
        prog=program, description=f"{program.removeprefix('eval_')} protocol of DINO on frozen features."
    )
    parser.add_argument("checkpoint", help="backbone file: ours, DINO's, timm's, …; 'random' for untrained weights")
    parser.add_argument("data", type=Path, help="folder with train/<class>/* and val/<class>/*")
    parser.add_argument("--role", default="teacher", choices=("teacher", "student"))
    parser.add_argument("--arch", help="timm architecture, for files that do not name it")
    parser.add_argument("--arch-options", nargs="+", default=[], metavar="KEY=VALUE", help="its options")
    parser.add_argument("--size", type=int, help="side of the views in pixels (default: the checkpoint's)")
    parser.add_argument("--resize", default="crop", choices=("crop", "squash"), help="see docs/pretraining.md")
    parser.add_argument("--batch-size", type=int, default=256, help="of one process (default 256)")
    parser.add_argument("--num-workers", type=int, default=0, help="loading processes of each process")
    parser.add_argument("--dtype", default="float32", choices=tuple(DTYPES))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="also write the result to this JSON file")
    parser.add_argument("--launcher", choices=launch.LAUNCHERS, default="none")
    if program == "eval_knn":
        parser.add_argument("--k", type=int, nargs="+", default=[10, 20, 100, 200])
        parser.add_argument("--temperature", type=float, default=0.07)
    else:
        parser.add_argument("--blocks", type=int, default=4, help="class tokens of so many last blocks (ViT-S: 4)")
        parser.add_argument("--average-patches", action="store_true", help="and the mean patch token (ViT-B)")
        parser.add_argument("--epochs", type=int, default=100)
        parser.add_argument("--lr", type=float, nargs="+", default=list(LINEAR_LRS), help="for a batch of 256")
        parser.add_argument("--held-out", type=float, default=0.1, help="share of train that chooses the lr")
        parser.add_argument(
            "--cache",
            action="store_true",
            help="central views only, features computed once: minutes instead of hours, a little less accurate",
        )
    return parser


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
        frozen, report = FrozenBackbone.random(args.arch, options or {}, args.seed, device, DTYPES[args.dtype])
    else:
        frozen, report = load_frozen(
            args.checkpoint,
            role=args.role,
            arch=args.arch,
            arch_kwargs=options,
            device=device,
            dtype=DTYPES[args.dtype],
        )
    if is_main_process():
        print(report)
    return frozen


def run_knn(args: argparse.Namespace) -> dict:
    """Top-1 for each k, and the effective rank of the validation features."""
    frozen = open_backbone(args)
    train, val = open_images(args, view_size(args, frozen))
    options = dict(batch_size=args.batch_size, num_workers=args.num_workers, device=frozen.device)
    function = frozen.features()
    votes, vote_labels = extract_features(function, train, title="train", **options)
    queries, labels = extract_features(function, val, title="val", **options)
    top1 = knn_accuracy(votes, vote_labels, queries, labels, args.k, args.temperature, device=frozen.device)
    return {
        "protocol": "knn",
        "top1": {str(k): round(value, 3) for k, value in top1.items()},
        "effective_rank": round(effective_rank(queries), 2),
    }


class _ShardedViews:
    """Batches of features of random views, computed anew each epoch; each process has its share."""

    def __init__(
        self, args: argparse.Namespace, function: FeatureFunction, images: LabelledImages, device: torch.device
    ) -> None:
        self.args, self.function, self.images, self.device = args, function, images, device

    def __call__(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        self.images.set_epoch(epoch)
        sampler: DistributedSampler = DistributedSampler(self.images, get_world_size(), get_rank(), seed=self.args.seed)
        sampler.set_epoch(epoch)
        loader = DataLoader(
            self.images,
            batch_size=self.args.batch_size,
            sampler=sampler,
            num_workers=self.args.num_workers,
            worker_init_fn=worker_init,
        )
        for views, labels, _ in loader:
            with torch.no_grad():
                features = self.function(views.to(self.device, non_blocking=True)).float()
            yield features, labels


def run_linear(args: argparse.Namespace) -> dict:
    """Top-1 of a linear classifier; the learning rate is chosen on held-out training images."""
    if len(args.lr) > 1 and not 0 < args.held_out < 1:
        raise ValueError(f"--held-out {args.held_out} must lie between 0 and 1 to choose among --lr {args.lr}")
    frozen = open_backbone(args)
    size = view_size(args, frozen)
    train, val = open_images(args, size)
    options = dict(batch_size=args.batch_size, num_workers=args.num_workers, device=frozen.device)
    function = frozen.features(args.blocks, args.average_patches)
    val_set = extract_features(function, val, title="val", **options)
    kept, held_out = split_held_out(len(train), args.held_out if len(args.lr) > 1 else 0.0, args.seed)
    batch, held = args.batch_size, None
    if args.cache:
        features, labels = extract_features(function, train, title="train", **options)
        batches = cached_batches(features[kept], labels[kept], batch, args.seed)
        if len(held_out):
            held = features[held_out], labels[held_out]
    else:
        random_views = LabelledImages(args.data / "train", size, augment=True, seed=args.seed)
        batches = _ShardedViews(args, function, random_views.select(kept.tolist()), frozen.device)
        if len(held_out):
            held = extract_features(function, train.select(held_out.tolist()), title="held out", **options)
        batch *= get_world_size()
    width, sharded = val_set[0].shape[1], not args.cache
    probes = LinearProbes(
        width, len(train.classes), args.lr, batch, args.epochs, args.seed, sharded=sharded, device=frozen.device
    )
    result = train_linear(batches, probes, val_set, held, _progress(args.epochs))
    return {
        "protocol": "linear",
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


def main(program: str, argv: Sequence[str] | None = None) -> int:
    """Run ``eval_knn`` or ``eval_linear``; the exit status."""
    args = build_parser(program).parse_args(argv)
    start = time.monotonic()
    try:
        launch.init_distributed(args.launcher)
        result = (run_knn if program == "eval_knn" else run_linear)(args)
    except (ValueError, FileNotFoundError, FloatingPointError) as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 1
    result.update(checkpoint=args.checkpoint, data=str(args.data), seconds=round(time.monotonic() - start, 1))
    if is_main_process():
        print(json.dumps(result, indent=2))
        if args.out:
            args.out.parent.mkdir(parents=True, exist_ok=True)
            args.out.write_text(json.dumps(result, indent=2) + "\n")
    launch.shutdown_distributed()
    return 0
