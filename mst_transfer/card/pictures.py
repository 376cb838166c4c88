"""Pictures of the card: folders of files below ``DIR/pictures``, each with an ``index.json`` that makes it a grid."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import cv2
import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray

from mst_transfer.files.atomic_files import write_text_atomically

Cells: TypeAlias = Mapping[str, Mapping[str, NDArray[np.uint8]]]  # photo's name → column → RGB [H, W, 3]
PHOTO, TRUTH = "photo", "truth"
SECTIONS = {"predictions": "Predictions", "maps": "Attention and components"}  # headings on the page
MAX_SIDE = 480  # pixels of a picture


class Instances(NamedTuple):
    """Boxes [N, 4] as (x0, y0, x1, y1) in pixels of the file, masks [N, H, W], classes [N]; the truth has no scores."""

    boxes: NDArray[np.float32]
    masks: NDArray[np.bool_]
    labels: NDArray[np.int64]
    scores: NDArray[np.float32] | None = None


def save_pictures(
    folder: Path, section: str, title: str, cells: Cells, caption: str = "", legend: Mapping[str, str] | None = None
) -> None:
    """Writes a grid, or the columns of it that one job knows, into a folder of its own below ``DIR/pictures``.

    Folders that agree in section, a key of ``SECTIONS``, and title are one grid on the page. Columns are ``PHOTO``,
    ``TRUTH`` and names of checkpoints. The legend has the colours of classes, see ``colours_of``.

    Raises:
        OSError: a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files: dict[str, dict[str, str]] = {}
    for row, (photo, pictures) in enumerate(cells.items()):
        for column, (name, picture) in enumerate(pictures.items()):
            scale = min(1.0, MAX_SIDE / max(picture.shape[:2]))
            small = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            path = folder / f"{row:02d}_{column:02d}.jpg"
            if not cv2.imwrite(str(path), small[..., ::-1]):
                raise OSError(f"{path} could not be written; is the disk full?")
            files.setdefault(photo, {})[name] = path.name
    index = dict(section=section, title=title, caption=caption, cells=files, legend=dict(legend or {}))
    write_text_atomically(folder / "index.json", json.dumps(index, indent=1))


def read_pictures(folders: Iterable[Path], checkpoints: Iterable[str]) -> dict[str, list[dict[str, Any]]]:
    """Reads the grids below folders, by the heading of their section: ``title``, ``columns``, ``cells`` (files), ….

    A picture lies beside its index, or is left out. Captions of one grid follow each other.
    """
    found: dict[str, dict[str, dict[str, Any]]] = {section: {} for section in SECTIONS}
    for path in (path for folder in folders for path in sorted(folder.glob("**/index.json"))):
        index = json.loads(path.read_text(encoding="utf-8"))
        grid = found[index["section"]].setdefault(index["title"], index | dict(cells={}, captions={}))
        grid["captions"][index["caption"]] = None
        grid["caption"] = " ".join(grid["captions"])
        grid["legend"].update(index["legend"])
        for photo, files in index["cells"].items():
            beside = {name: path.with_name(Path(file).name) for name, file in files.items()}
            grid["cells"].setdefault(photo, {}).update({name: file for name, file in beside.items() if file.is_file()})
        held = {name for row in grid["cells"].values() for name in row}
        grid["columns"] = [name for name in (PHOTO, TRUTH, *checkpoints) if name in held]
    return {heading: list(found[section].values()) for section, heading in SECTIONS.items() if found[section]}


def draw_answer(image: NDArray[np.uint8], answer: Any, classes: Sequence[str]) -> NDArray[np.uint8]:
    """Lays ``Instances`` or a label map [H, W] over an image [H, W, 3]: RGB, longest side ``MAX_SIDE``.

    Pixels of no class stay as they are; class and score in per cent stand in an instance's box.
    """
    boxed = isinstance(answer, Instances)
    labels = answer.labels if boxed else np.unique(answer[answer < len(classes)])
    picture, scale = image.astype(np.float32), MAX_SIDE / max(image.shape[:2])
    for mask, label in zip(answer.masks if boxed else answer == labels[:, None, None], labels, strict=True):
        picture[mask] = 0.4 * picture[mask] + 0.6 * np.array(colour_of(label))
    smooth = cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST
    picture = cv2.resize(picture.round().astype(np.uint8), None, fx=scale, fy=scale, interpolation=smooth)
    for index, box in enumerate(answer.boxes if boxed else ()):
        x0, y0, x1, y1 = (box * scale).round().astype(int).tolist()
        cv2.rectangle(picture, (x0, y0), (x1, y1), colour_of(labels[index]), 2)
        words = classes[labels[index]] + ("" if answer.scores is None else f" {100 * answer.scores[index]:.0f}")
        for width, ink in ((3, (0, 0, 0)), (1, (255, 255, 255))):
            cv2.putText(picture, words, (x0 + 3, y0 + 13), cv2.FONT_HERSHEY_SIMPLEX, 0.4, ink, width, cv2.LINE_AA)
    return picture


def colour_of(label: int) -> tuple[int, ...]:
    """RGB of a class, the same in every picture, far from that of its neighbours."""
    return tuple(round(255 * part) for part in colormaps["turbo"]((0.1 + 0.618 * label) % 1)[:3])


def colours_of(answers: Iterable[Any], classes: Sequence[str]) -> dict[str, str]:
    """Makes the legend of some answers: each class that one of them holds, and its colour as ``#rrggbb``."""
    labels = [answer.labels if isinstance(answer, Instances) else np.unique(answer) for answer in answers]
    held = sorted({label for found in labels for label in found.tolist() if label < len(classes)})
    return {classes[label]: "#{:02x}{:02x}{:02x}".format(*colour_of(label)) for label in held}
