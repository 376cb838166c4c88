"""The largest inputs that a config's data can make: what a dry run must fit into memory."""

from collections.abc import Sequence
from typing import Any

from mst_transfer.configs.datasets import unwrap
from mst_transfer.preflight.data_files import MAX_IMAGES, image_size


def at_largest_shape(dataset: Any) -> None:
    """Makes the random sizes of a dataset's pipelines the largest ones, in place. Crops stay as they are.

    ``RandomChoiceResize`` keeps its largest scale, ``RandomResize`` the top of its range, and ``RandomChoice`` the
    branch with the largest scale.
    """
    places = [dataset, *(inner for _, inner in unwrap("", dataset))]
    while isinstance(places[0].get("dataset"), dict):  # pipelines of wrappers, such as those of mosaics
        places.insert(0, places[0]["dataset"])
    for place in places:
        if place.get("pipeline"):
            place["pipeline"] = [_largest(step) for step in place["pipeline"]]


def _largest(step: Any) -> Any:
    kind = str(step.get("type")).split(".")[-1] if isinstance(step, dict) else ""
    if kind == "RandomChoiceResize" and step.get("scales"):
        return dict(step, scales=[max(step["scales"], key=_area)])
    if kind == "RandomChoice":
        branches = [[_largest(inner) for inner in branch] for branch in step["transforms"]]
        return dict(type=step["type"], transforms=[max(branches, key=_branch_area)])
    if kind == "RandomResize" and step.get("scale"):
        scale = step["scale"]
        if isinstance(scale, Sequence) and scale and isinstance(scale[0], Sequence):
            largest = max(scale, key=_area)
            return dict(step, scale=[largest, largest])
        top = (step.get("ratio_range") or (1, 1))[1]
        return dict(step, ratio_range=(top, top))
    return step


def _area(scale: Any) -> float:
    return scale[0] * scale[1] if isinstance(scale, Sequence) else scale * scale


def _branch_area(branch: Sequence[Any]) -> float:
    """The size that a branch ends with: that of its last resizing step."""
    areas = [0.0]
    for step in branch:
        scales = step.get("scales") or ([step["scale"]] if step.get("scale") else [])
        if scales and isinstance(scales[0], Sequence):
            areas.append(max(map(_area, scales)))
    return areas[-1]


def largest_images(dataset: Any, number: int) -> list[int]:
    """Indices of the images that become largest, largest first; as many as asked for, repeated if there are fewer.

    Where annotations give no sizes (mmseg's), the headers of 200 files do, evenly spaced.
    """
    full = getattr(dataset, "full_init", None)
    if full is not None:
        full()
    length = len(dataset)
    if not length:
        raise ValueError("the dataset has no image left after its filters. Run: mst check CONFIG")
    scale = _scale_of(dataset)
    looked_at = range(0, length, 1 if _size(dataset, 0, read=False) else -(-length // MAX_IMAGES))
    areas = {index: _resized_area(_size(dataset, index), scale) for index in looked_at}
    order = sorted(looked_at, key=lambda index: -areas[index])
    return [order[index % len(order)] for index in range(number)]


def _size(dataset: Any, index: int, read: bool = True) -> tuple[float, float] | None:
    """Width and height by the annotations, or by the file's header; None if neither says."""
    info = dataset.get_data_info(index) if hasattr(dataset, "get_data_info") else {}
    if "width" in info and "height" in info:
        return info["width"], info["height"]
    try:
        return image_size(info["img_path"]) if read else None
    except (KeyError, ValueError):
        return None


def _resized_area(size: tuple[float, float] | None, scale: tuple[float, float] | None) -> float:
    """Area after the pipeline's resizing, which keeps the ratio of the sides within a scale, e.g. 1333 × 800."""
    if size is None:
        return 0.0
    width, height = size
    if scale is None:
        return width * height
    long, short = max(scale), min(scale)
    factor = min(long / max(width, height), short / min(width, height))
    return width * height * factor**2


def _scale_of(dataset: Any) -> tuple[float, float] | None:
    for step in getattr(getattr(dataset, "pipeline", None), "transforms", ()):
        scale = getattr(step, "scale", None) or (getattr(step, "scales", None) or [None])[0]
        if isinstance(scale, Sequence) and len(scale) == 2 and not isinstance(scale[0], Sequence):
            return scale[0], scale[1]
    return None
