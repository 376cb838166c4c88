"""Pictures of what a pre-training run has learnt: importance, mask and restored views.

``python -m pretrain.pictures WORK_DIR --images FOLDER --out FOLDER`` writes PNG files and ``index.json``, which lists
them with title and caption.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import matplotlib
import numpy as np
import torch
from mmengine.config import Config
from mmengine.runner import load_checkpoint

from mst_transfer.compat.serialization import latest_checkpoint
from pretrain.image_folder import find_images, read_image
from pretrain.losses import restoring_loss
from pretrain.model import MST
from pretrain.registry import MODELS

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402


@dataclass(frozen=True)
class Views:
    """What the model makes of a few photographs; all arrays are float in [0, 1].

    Attributes:
        photos: RGB [B, S, S, 3].
        importance: [B, h, w], attention of the class token over the patches; sums to less than 1 an image.
        mask: bool [B, h, w], True where hidden from the student.
        restored: RGB [B, S, S, 3], or None without a decoder.
        error: mean absolute error of the restored views, in normalised units, and that of each view's mean colour.
    """

    photos: np.ndarray
    importance: np.ndarray
    mask: np.ndarray | None
    restored: np.ndarray | None
    error: tuple[float, float] | None


def load_run(work_dir: Path, config: Path | None = None) -> tuple[MST, int]:
    """The newest checkpoint of a run, in evaluation mode, and the side of its global views in pixels.

    Raises:
        FileNotFoundError: no checkpoint, or not exactly one config, in ``work_dir``.
    """
    checkpoint = latest_checkpoint(work_dir)
    if checkpoint is None:
        raise FileNotFoundError(
            f"no checkpoint in {work_dir}; make one with tools/pretrain.sh CONFIG 1 --work-dir {work_dir}"
        )
    if config is None:
        configs = sorted(work_dir.glob("*.py"))
        if len(configs) != 1:
            raise FileNotFoundError(
                f"{work_dir} holds {len(configs)} configs, not one; name it with --config"
            )
        config = configs[0]
    cfg = Config.fromfile(config)
    model: MST = MODELS.build(cfg.model)
    load_checkpoint(model, str(checkpoint), map_location="cpu", strict=True)
    return model.eval(), cfg.train_dataloader.dataset.global_size


def read_square(path: str, side: int) -> np.ndarray:
    """The central square of an image, RGB uint8 [side, side, 3].

    Raises:
        UnreadableImageError: the file is not a readable image.
    """
    image = read_image(path)
    height, width = image.shape[:2]
    edge = min(height, width)
    top, left = (height - edge) // 2, (width - edge) // 2
    square = np.ascontiguousarray(image[top : top + edge, left : left + edge])
    method = cv2.INTER_AREA if edge > side else cv2.INTER_CUBIC
    return cv2.resize(square, (side, side), interpolation=method)


@torch.no_grad()
def look(model: MST, images: np.ndarray) -> Views:
    """Run teacher, mask, student and decoder on uint8 images [B, S, S, 3], without augmentation."""
    views = model.normalise(torch.from_numpy(images).permute(0, 3, 1, 2))
    patch = model.teacher.backbone.patch_size
    grid = (views.shape[-2] // patch, views.shape[-1] // patch)
    seen = model.teacher.backbone(views, importance=True)
    mask = model.mask_generator(seen.importance, torch.arange(len(images)), 0, 1, grid[0] * grid[1])
    restored = error = None
    if model.decoder is not None:
        tokens = model.student.backbone(views, mask=mask, patch_tokens=True).patch_tokens
        output = model.decoder(tokens)
        flat = views.mean(dim=(2, 3), keepdim=True).expand_as(views)
        error = (restoring_loss(output, views).item(), restoring_loss(flat, views).item())
        restored = ((output * model.std + model.mean) / 255).clamp(0, 1).permute(0, 2, 3, 1).numpy()
    return Views(
        photos=images / 255.0,
        importance=seen.importance.reshape(-1, *grid).numpy(),
        mask=None if mask is None else mask.reshape(-1, *grid).numpy(),
        restored=restored,
        error=error,
    )


def grey_out(photos: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Photos [B, S, S, 3] with the hidden patches in grey."""
    scale = photos.shape[1] // mask.shape[1]
    hidden = mask.repeat(scale, axis=1).repeat(scale, axis=2)[..., None]
    return np.where(hidden, 0.5, photos)


def draw_rows(columns: dict[str, np.ndarray], overlay: np.ndarray | None = None) -> Figure:
    """One row a column name, one picture an image; ``overlay`` [B, h, w] colours the row called ``importance``."""
    count = len(next(iter(columns.values())))
    figure, axes = plt.subplots(
        len(columns), count, figsize=(1.6 * count, 1.72 * len(columns)), squeeze=False
    )
    for row, (name, pictures) in zip(axes, columns.items(), strict=True):
        for index, (axis, picture) in enumerate(zip(row, pictures, strict=True)):
            axis.imshow(picture, interpolation="nearest", extent=(0, 1, 0, 1))
            if name == "importance" and overlay is not None:
                axis.imshow(
                    overlay[index], cmap="inferno", alpha=0.65, interpolation="nearest", extent=(0, 1, 0, 1)
                )
            axis.set_xticks([])
            axis.set_yticks([])
        row[0].set_ylabel(name, fontsize=9)
    figure.tight_layout(pad=0.3)
    return figure


def write_pictures(views: Views, mode: str, out: Path) -> list[dict[str, str]]:
    """PNG files in ``out``; their entries for ``index.json``."""
    out.mkdir(parents=True, exist_ok=True)
    entries = []

    def save(name: str, title: str, caption: str, figure: Figure) -> None:
        figure.savefig(out / name, dpi=110)
        plt.close(figure)
        entries.append({"file": name, "title": title, "caption": caption})

    rows = {"photo": views.photos, "importance": views.photos}
    caption = (
        "Importance: attention of the teacher's class token over the patches in its last block, averaged over heads; "
        "bright is high, each picture on its own scale."
    )
    if views.mask is not None:
        rows["masked"] = grey_out(views.photos, views.mask)
        caption += (
            f" Grey: the {views.mask.mean():.1%} of the patches hidden from the student (mode '{mode}')."
        )
    save(
        "importance.png",
        "What the teacher attends to, and what is masked",
        caption,
        draw_rows(rows, views.importance),
    )
    if views.restored is not None and views.error is not None:
        rows = {"photo": views.photos}
        if views.mask is not None:
            rows["input"] = grey_out(views.photos, views.mask)
        rows["restored"] = views.restored
        caption = (
            f"Restored by the global decoder from all patch tokens. Mean absolute error over these "
            f"{len(views.photos)} views, normalised pixels: {views.error[0]:.3f}; painting each view in its mean "
            f"colour: {views.error[1]:.3f}."
        )
        save("restored.png", "Restored views", caption, draw_rows(rows))
    return entries


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m pretrain.pictures", description="Draw what a run has learnt."
    )
    parser.add_argument("work_dir", type=Path, help="work directory of a pre-training run")
    parser.add_argument("--images", type=Path, required=True, nargs="+", help="folders of photographs")
    parser.add_argument("--out", type=Path, required=True, help="where the PNG files go")
    parser.add_argument(
        "--num", type=int, default=8, help="photographs, taken evenly from each folder (default 8)"
    )
    parser.add_argument("--config", type=Path, help="config of the run (default: the one in work_dir)")
    args = parser.parse_args(argv)
    model, side = load_run(args.work_dir, args.config)
    paths: list[str] = []
    for position, folder in enumerate(args.images):
        found = find_images(folder)
        share = args.num // len(args.images) + (position < args.num % len(args.images))
        paths += [found[round(i)] for i in np.linspace(0, len(found) - 1, share)]
    views = look(model, np.stack([read_square(path, side) for path in paths]))
    entries = write_pictures(views, model.mask_generator.mode, args.out)
    (args.out / "index.json").write_text(json.dumps(entries, indent=2) + "\n")
    print("\n".join(str(args.out / entry["file"]) for entry in entries))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
