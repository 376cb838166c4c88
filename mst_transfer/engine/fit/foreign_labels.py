"""Labels that people have, written once as COCO's JSON: YOLO's text files, Pascal VOC's and CVAT's XML."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.parsers import expat

import yaml

from mst_transfer.files.atomic_files import write_text_atomically
from mst_transfer.files.image_files import IMAGE_EXTENSIONS, UnreadableImageError, upright_size
from mst_transfer.files.image_folder import find_images
from mst_transfer.preflight.findings import Finding, raise_if_any
from mst_transfer.runs import launch

SPLITS = ("train", "val")
_SLACK = 0.01  # of an image's side, by which rounded corners may lie outside
_MAX_FINDINGS = 20
_FORMS = "class cx cy width height, or class x1 y1 x2 y2 x3 y3 …, shares of width and height between 0 and 1"

Coco = dict[str, Any]  # content of a file in COCO's format


def write_as_coco(kind: str, sources: Sequence[str], folder: Path) -> tuple[list[str], list[str]]:
    """Reads labels of a kind of ``READERS``, and writes ``train.json`` and ``val.json`` into a folder.

    Args:
        kind, sources: ``yolo``: one ``data.yaml``; ``voc``: one root that holds ``Annotations`` and
            ``ImageSets/Main/{train,val}.txt``; ``cvat``: two files of "CVAT for images 1.1", beside their images.
        folder: made if it is missing.

    Returns:
        The two files and their image folders, as ``use_coco_files`` takes them.

    Raises:
        FileNotFoundError: there is no such file, or it names images or label files that are not there.
        ValueError: a line is none, a split has no image or no object; names file, line, value and what is allowed.
    """
    for path in sources:
        if not os.path.exists(path):
            raise FileNotFoundError(f"--{kind}: {path} does not exist")
    files, images = [], []
    for split, content in zip(SPLITS, READERS[kind]([Path(path).absolute() for path in sources]), strict=True):
        if not content["images"] or not content["annotations"]:
            raise ValueError(f"--{kind}: {' '.join(sources)}: {split} has {_counts(content)}: nothing to learn from")
        names = [image["file_name"] for image in content["images"]]
        root = os.path.commonpath([os.path.dirname(name) for name in names])
        for image in content["images"]:
            image["file_name"] = os.path.relpath(image["file_name"], root)
        file = folder / f"{split}.json"
        folder.mkdir(parents=True, exist_ok=True)
        write_text_atomically(file, json.dumps(content))
        if launch.rank() == 0:
            print(f"{split}: {_counts(content)}, images below {root}: {file}")
        files.append(str(file))
        images.append(root)
    return files, images


def _counts(content: Coco) -> str:
    labelled = {one["image_id"] for one in content["annotations"]}
    polygons = sum("segmentation" in one for one in content["annotations"])
    return (
        f"{len(content['images'])} images ({len(content['images']) - len(labelled)} without objects), "
        f"{len(content['annotations'])} objects of {len(content['categories'])} classes, {polygons} with outlines"
    )


def _read_yolo(sources: Sequence[Path]) -> list[Coco]:
    """``data.yaml`` of Ultralytics: ``path``, ``train``, ``val``, and ``names`` as a list or by number.

    With ``kpt_shape`` a line is a box and key points, of which the box is taken.
    """
    (path,) = sources
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"--yolo: {path} is no YAML: {error}") from error
    if not isinstance(content, dict) or not all(content.get(key) for key in (*SPLITS, "names")):
        raise ValueError(f"--yolo: {path} must hold train, val and names, as Ultralytics writes them")
    names = content["names"]
    names = dict(enumerate(names)) if isinstance(names, list) else names
    if not isinstance(names, dict) or set(names) != set(range(len(names))):
        raise ValueError(f"--yolo: {path}: names are {names}, they must be a list, or have the numbers from 0 on")
    if content.get("nc", len(names)) != len(names):
        raise ValueError(f"--yolo: {path}: nc is {content['nc']}, and names are {len(names)}: they must agree")
    findings: list[Finding] = []
    has_points = "kpt_shape" in content
    splits = [_yolo_split(_yolo_images(path, content, split), names, has_points, findings) for split in SPLITS]
    if len(findings) > _MAX_FINDINGS:
        findings[_MAX_FINDINGS:] = [Finding(f"… and {len(findings) - _MAX_FINDINGS} more")]
    raise_if_any(findings)
    return splits


def _yolo_images(path: Path, content: Mapping[str, Any], split: str) -> list[str]:
    """Images of a split: folders, or lists of images; relative to ``path``, which is relative to the file."""
    root, found = path.parent / str(content.get("path") or ""), []
    values = content[split] if isinstance(content[split], list) else [content[split]]
    for value in map(str, values):
        places = [root / value, path.parent / value, path.parent / value.removeprefix("../")]
        place = next((place for place in places if place.exists()), None)
        if place is None:
            looked = ", ".join(map(str, dict.fromkeys(places)))
            raise FileNotFoundError(f"--yolo: {path}: {split}: {value} is not there; looked for {looked}")
        if place.is_dir():
            found += find_images(place)
            continue
        for number, line in enumerate(place.read_text(encoding="utf-8").splitlines(), 1):
            if line.strip():
                image = place.parent / line.strip() if line.startswith("./") else root / line.strip()
                if image.suffix.lower() not in IMAGE_EXTENSIONS or not image.is_file():
                    raise FileNotFoundError(f"--yolo: {place}:{number}: there is no image {image}")
                found.append(str(image))
    return [*dict.fromkeys(map(os.path.abspath, found))]  # one that is named twice is one


def _label_file(image: str) -> Path:
    """``…/labels/x.txt`` of ``…/images/x.jpg``; of other folders beside it."""
    before, last, after = image.rpartition(f"{os.sep}images{os.sep}")
    return Path(f"{before}{os.sep}labels{os.sep}{after}" if last else image).with_suffix(".txt")


def _yolo_split(images: Sequence[str], names: Mapping[int, str], has_points: bool, findings: list[Finding]) -> Coco:
    categories = [dict(id=number + 1, name=str(names[number])) for number in range(len(names))]
    content: Coco = dict(images=[], annotations=[], categories=categories)
    for number, image in enumerate(images, 1):
        try:
            height, width = upright_size(image)
        except UnreadableImageError as error:
            findings.append(Finding(str(error)))
            continue
        content["images"].append(dict(id=number, file_name=image, height=height, width=width))
        labels = _label_file(image)
        lines = labels.read_text(encoding="utf-8").splitlines() if labels.is_file() else []
        for text in dict.fromkeys(lines):  # a line that is there twice is one object
            try:
                shape = _yolo_shape(text.split()[: 5 if has_points else None], len(names), width, height)
            except ValueError as error:
                where = lines.index(text) + 1
                findings.append(Finding(f"{labels}:{where}: {text.strip()[:80]!r}: {error}. A line is {_FORMS}"))
                continue
            if shape:
                shape |= dict(id=len(content["annotations"]) + 1, image_id=number, iscrowd=0)
                content["annotations"].append(shape)
    return content


def _yolo_shape(words: Sequence[str], num_classes: int, width: int, height: int) -> dict[str, Any]:
    """Class, box, and outline, of one line, in pixels; nothing of an empty line."""
    if not words:
        return {}
    label, numbers = float(words[0]), [float(word) for word in words[1:]]
    if label not in range(num_classes):
        raise ValueError(f"class {words[0]} is none of 0 … {num_classes - 1}")
    if len(numbers) != 4 and (len(numbers) < 6 or len(numbers) % 2):
        raise ValueError(f"{len(numbers)} numbers after the class")
    if not all(-_SLACK <= number <= 1 + _SLACK for number in numbers):  # neither is NaN
        raise ValueError("numbers outside 0 … 1")
    shape: dict[str, Any] = dict(category_id=int(label) + 1)
    if len(numbers) == 4:
        middle_x, middle_y, across, down = numbers
        xs, ys = [middle_x - across / 2, middle_x + across / 2], [middle_y - down / 2, middle_y + down / 2]
    else:
        xs, ys = numbers[::2], numbers[1::2]
    xs, ys = ([min(max(x, 0.0), 1.0) * side for x in part] for part, side in ((xs, width), (ys, height)))
    left, top, right, bottom = min(xs), min(ys), max(xs), max(ys)
    if right <= left or bottom <= top:
        raise ValueError("a width or height of 0")
    area = (right - left) * (bottom - top)
    if len(numbers) > 4:
        area = abs(sum(x * (ys[i - 1] - ys[(i + 1) % len(ys)]) for i, x in enumerate(xs))) / 2
        shape["segmentation"] = [[value for point in zip(xs, ys, strict=True) for value in point]]
    return shape | dict(bbox=[left, top, right - left, bottom - top], area=area)


def _read_voc(sources: Sequence[Path]) -> list[Coco]:
    """All of ``Annotations`` by hotcoco, then the images of each list."""
    import hotcoco

    (root,) = sources
    whole = hotcoco.COCO.from_voc(str(root)).dataset
    names = [Path(image["file_name"]).stem for image in whole["images"]]
    by_stem = dict(zip(names, whole["images"], strict=True))
    if len(by_stem) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        place = root / "Annotations" if (root / "Annotations").is_dir() else root
        files = zip(sorted(place.glob("*.xml")), names, strict=True)  # hotcoco's order
        wrong = ", ".join(file.name for file, name in files if name == twice)
        raise ValueError(
            f"--voc: {place}: {wrong} have a <filename> of the same image, {twice}: each must name its own. "
            "Next step: correct the names, or take files out"
        )
    splits = []
    for split in SPLITS:
        path = root / "ImageSets" / "Main" / f"{split}.txt"
        if not path.is_file():
            raise FileNotFoundError(f"--voc: {path} is not there: it lists the images of {split}, one name a line")
        stems = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        if missing := [stem for stem in stems if stem not in by_stem]:
            raise FileNotFoundError(f"--voc: {path} names {missing[0]}, and {root / 'Annotations'} has no such file")
        folder = root / "JPEGImages"
        images = [{**by_stem[stem], "file_name": str(folder / by_stem[stem]["file_name"])} for stem in stems]
        used = {image["id"] for image in images}
        annotations = [one for one in whole["annotations"] if one["image_id"] in used]
        splits.append({**whole, "images": images, "annotations": annotations})
    return splits


def _read_cvat(sources: Sequence[Path]) -> list[Coco]:
    """Two files by hotcoco, which warns of what it skips; images are found beside the file."""
    import hotcoco

    splits = []
    for path in sources:
        _check_unrotated(path)
        content = hotcoco.COCO.from_cvat(str(path)).dataset
        for image in content["images"]:
            places = [path.parent / image["file_name"], path.parent / "images" / image["file_name"]]
            image["file_name"] = str(next((place for place in places if place.is_file()), places[0]))
        splits.append(content)
    return splits


def _check_unrotated(path: Path) -> None:
    """Refuses a CVAT file with rotated boxes, whose rotation hotcoco leaves out; expands no entities.

    Raises:
        ValueError: a box is rotated, or the file is no XML or declares entities.
    """
    parser, images, rotated = expat.ParserCreate(), [""], list[str]()

    def begin(name: str, attributes: dict[str, str]) -> None:
        if name == "image":
            images.append(attributes.get("name", ""))
        elif name == "box" and float(attributes.get("rotation") or 0) % 360:
            rotated.append(images[-1])

    def refuse(name: str, *_: Any) -> None:
        raise ValueError(f"--cvat: {path} declares an entity, {name}, which CVAT does not write")

    parser.StartElementHandler, parser.EntityDeclHandler = begin, refuse
    try:
        with open(path, "rb") as file:
            parser.ParseFile(file)
    except expat.ExpatError as error:
        raise ValueError(f"--cvat: {path} is no XML: {error}") from error
    if rotated:
        raise ValueError(
            f"--cvat: {path}: {len(rotated)} boxes are rotated, the first in image {rotated[0]}; a box's rotation must "
            "be 0 or left out. Next step: convert them to polygons in CVAT, and export again"
        )


READERS: dict[str, Callable[[Sequence[Path]], list[Coco]]] = dict(yolo=_read_yolo, voc=_read_voc, cvat=_read_cvat)
