"""PNG files of what a run, or any backbone, has learnt, with titles and captions in ``index.json``."""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from mmengine.runner import load_checkpoint
from timm.models.swin_transformer import SwinTransformer

from mst_transfer.configs.saved import read_config_of_run, registered_types_only
from mst_transfer.files.image_folder import find_images
from mst_transfer.probes.attention import Backbone, token_grid
from mst_transfer.probes.backbones import load_frozen
from mst_transfer.probes.maps import heat_map, overlay
from mst_transfer.runs.checkpoints import latest_checkpoint
from pretrain.model import MST
from pretrain.pictures.inference import Views, read_crop, run_backbone, run_model
from pretrain.registry import MODELS

_MAX_PANELS_A_ROW = 7


def load_run(work_dir: Path, config: Path | None = None, trust_config: bool = False) -> tuple[MST, int]:
    """The newest checkpoint of a run, in evaluation mode, and the side of its global views in pixels.

    Args:
        work_dir: of the run.
        config: a file that stands for the run's own config.
        trust_config: run a ``.py`` config, and import what it names; else what the run saved as data is read.

    Raises:
        FileNotFoundError: no checkpoint, or no config, in ``work_dir``.
        ValueError: the config is a program, or may not be read as data.
    """
    checkpoint = latest_checkpoint(work_dir)
    if checkpoint is None:
        raise FileNotFoundError(
            f"no checkpoint in {work_dir}; make one with tools/pretrain.sh CONFIG 1 --work-dir {work_dir}"
        )
    cfg = read_config_of_run(work_dir, trust_config, config)
    cfg.model.update(init_from=None, init_head=False)  # the checkpoint holds what came of it
    with nullcontext() if trust_config else registered_types_only():
        try:
            model: MST = MODELS.build(cfg.model)
        except RuntimeError as error:
            raise ValueError(f"config {cfg.filename}: the model cannot be built: {error}") from error
    load_checkpoint(model, str(checkpoint), map_location="cpu", strict=True)
    return model.eval(), cfg.train_dataloader.dataset.global_size


def choose_images(places: Sequence[Path], num: int) -> list[str]:
    """Image files as they are named, and ``num`` images in all from the folders, taken evenly.

    Raises:
        FileNotFoundError: a place does not exist, or a folder holds no image.
        ValueError: nothing is chosen.
    """
    folders = [place for place in places if place.is_dir()]
    paths: list[str] = []
    for place in places:
        if place.is_file():
            paths.append(str(place))
        elif place.is_dir():
            found, position = find_images(place), folders.index(place)
            share = num // len(folders) + (position < num % len(folders))
            paths += [found[round(i)] for i in np.linspace(0, len(found) - 1, min(share, len(found)))]
        else:
            raise FileNotFoundError(f"--images {place}: there is no such file or folder")
    if not paths:
        raise ValueError(f"--num {num} leaves no photograph; choose at least 1")
    return paths


def attention_words(backbone: Backbone, role: str) -> str:
    """Whose attention over what the pictures show; ``role`` is ``teacher``, ``student`` or ``network``."""
    if isinstance(backbone, SwinTransformer):
        return f"attention of the {role}'s average-pooled feature over the last-stage tokens"
    if backbone.cls_token is None:
        return f"attention that all of the {role}'s tokens pay to each patch in its last block"
    return f"attention of the {role}'s class token over the patches in its last block"


def grey_out(photos: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Photos [B, H, W, 3] with the hidden cells, mask [B, h, w], in grey."""
    scale = photos.shape[1] // mask.shape[1]
    hidden = mask.repeat(scale, axis=1).repeat(scale, axis=2)[..., None]
    return np.where(hidden, 0.5, photos)


def _show(axis: Axes, picture: np.ndarray) -> None:
    axis.imshow(picture, interpolation="nearest", vmin=0, vmax=1)
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set_visible(False)


def draw_rows(rows: dict[str, np.ndarray]) -> Figure:
    """One row a name, one picture [H, W, 3] an image; all [B, H, W, 3]."""
    first = next(iter(rows.values()))
    count, aspect = len(first), first.shape[1] / first.shape[2]
    size = (1.6 * count + 0.2, (1.6 * aspect + 0.05) * len(rows))
    figure = Figure(size, dpi=140, layout=ConstrainedLayoutEngine(w_pad=0.01, h_pad=0.01, wspace=0.01, hspace=0.01))
    axes = figure.subplots(len(rows), count, squeeze=False)
    for line, (name, pictures) in zip(axes, rows.items(), strict=True):
        for axis, picture in zip(line, pictures, strict=True):
            _show(axis, picture)
        line[0].set_ylabel(name, fontsize=9)
    return figure


def draw_heads(photo: np.ndarray, heads: np.ndarray) -> Figure:
    """A photo [H, W, 3], the mean of its attention heads [n, h, w], and each head."""
    panels = {"photo": photo, "mean": overlay(photo, heads.mean(axis=0))}
    panels |= {f"head {number}": overlay(photo, head) for number, head in enumerate(heads, 1)}
    lines = math.ceil(len(panels) / _MAX_PANELS_A_ROW)
    columns = math.ceil(len(panels) / lines)
    size = (1.8 * columns, (1.8 * photo.shape[0] / photo.shape[1] + 0.22) * lines)
    figure = Figure(size, dpi=140, layout=ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02, wspace=0.01, hspace=0.01))
    axes = figure.subplots(lines, columns, squeeze=False)
    for axis in axes.flat[len(panels) :]:
        axis.remove()
    for axis, (name, picture) in zip(axes.flat, panels.items(), strict=False):
        _show(axis, picture)
        axis.set_title(name, fontsize=9, pad=3)
    return figure


class PictureFolder:
    """PNG files of one folder, and their entries for ``index.json``.

    Args:
        path: made when it is not there.
        words: see ``attention_words``.
    """

    def __init__(self, path: Path, words: str) -> None:
        self.path, self.words = path, words
        self.entries: list[dict[str, str]] = []
        path.mkdir(parents=True, exist_ok=True)

    def _save(self, name: str, title: str, caption: str, figure: Figure) -> None:
        figure.savefig(self.path / name)
        self.entries.append({"file": name, "title": title, "caption": caption})

    def write_importance(self, views: Views, mode: str | None) -> None:
        """Photos, importance, and masked photos where the mode ('attention', 'random') masks any."""
        importance = [overlay(*pair) for pair in zip(views.photos, views.importance, strict=True)]
        rows, title = {"photo": views.photos, "importance": np.stack(importance)}, "What the network attends to"
        caption = f"Importance: {self.words}, averaged over heads; bright is high, each picture on its own scale."
        if views.mask is not None:
            rows["masked"] = grey_out(views.photos, views.mask)
            title = "What the teacher attends to, and what is masked"
            caption += f" Grey: the {views.mask.mean():.1%} of the patches hidden from the student (mode '{mode}')."
        self._save("importance.png", title, caption, draw_rows(rows))

    def write_restored(self, views: Views) -> None:
        """Photos, what the student sees of them, and what the decoder restores."""
        assert views.restored is not None and views.error is not None
        rows = {"photo": views.photos}
        if views.mask is not None:
            rows["input"] = grey_out(views.photos, views.mask)
        rows["restored"] = views.restored
        caption = (
            f"Restored by the global decoder from all patch tokens. Mean absolute error over these "
            f"{len(views.photos)} views, normalised pixels: {views.error[0]:.3f}; painting each view in its mean "
            f"colour: {views.error[1]:.3f}."
        )
        self._save("restored.png", "Restored views", caption, draw_rows(rows))

    def write_heads(self, views: Views, paths: Sequence[str]) -> None:
        """A figure of each photo's heads, and in ``heads/`` every map alone."""
        for number, (path, photo, heads) in enumerate(zip(paths, views.photos, views.heads, strict=True), 1):
            name = f"{number:02d}_{Path(path).stem}"
            folder = self.path / "heads" / name
            folder.mkdir(parents=True, exist_ok=True)
            maps = {"mean": heads.mean(axis=0), **{f"head_{i}": head for i, head in enumerate(heads, 1)}}
            for title, attention in maps.items():
                colours = heat_map(attention, *photo.shape[:2])
                if not cv2.imwrite(str(folder / f"{title}.png"), colours[..., ::-1]):
                    raise OSError(f"{folder / title}.png could not be written; is the disk full?")
            caption = (
                f"{self.words[0].upper()}{self.words[1:]}, head by head, and their mean; bright is high, each map on "
                f"its own scale. Every map alone: heads/{name}."
            )
            self._save(f"heads_{name}.png", f"Attention heads: {Path(path).name}", caption, draw_heads(photo, heads))

    def write_index(self) -> None:
        """``index.json``."""
        (self.path / "index.json").write_text(json.dumps(self.entries, indent=2) + "\n")


def draw(args: argparse.Namespace) -> PictureFolder:
    """What the command line asks for.

    Raises:
        FileNotFoundError: a checkpoint, config or image is missing.
        ValueError: a file can't be read, or the size does not fit the network.
    """
    if args.checkpoint is None:
        model, side = load_run(args.work_dir, args.config, args.trust_config)
        backbone, role, mode = model.teacher.backbone.vit, "teacher", model.mask_generator.mode
    else:
        frozen, report = load_frozen(args.checkpoint, role=args.role, arch=args.arch)
        print(report, file=sys.stderr)
        backbone, side, mode = frozen.model, frozen.img_size, None
        role = frozen.role or "network"  # files of others may hold neither role
    height, width = (args.size or [side])[0], (args.size or [side])[-1]
    token_grid(backbone, height, width)  # a ValueError if they don't fit
    paths = choose_images(args.images, args.num)
    images = np.stack([read_crop(path, height, width) for path in paths])
    views = run_model(model, images) if args.checkpoint is None else run_backbone(frozen, images)
    folder = PictureFolder(args.out, attention_words(backbone, role))
    folder.write_importance(views, mode)
    if views.restored is not None:
        folder.write_restored(views)
    if args.heads:
        folder.write_heads(views, paths)
    folder.write_index()
    return folder
