"""The largest inputs that a config's data can make: what a dry run must fit into memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mst_transfer.datasets.config_datasets import unwrap


def at_largest_shape(dataset: Any) -> None:
    """Makes the random sizes of a dataset's pipelines the largest ones, in place. Crops stay as they are.

    ``RandomChoiceResize`` keeps its largest scale, ``RandomResize`` the top of its range, and ``RandomChoice`` the
    branch with the largest scale.

    Args:
        dataset: config of a dataset, wrapped or not.
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

    Where annotations give no sizes (mmseg's), the first images; their crops are of one size in any case.
    """
    full = getattr(dataset, "full_init", None)
    if full is not None:
        full()
    length = len(dataset)
    if not length:
        raise ValueError("the dataset has no image left after its filters. Run: mst check CONFIG")
    scale = _scale_of(dataset)
    sizes = [_resized_area(dataset, index, scale) for index in range(length if _has_sizes(dataset) else 0)]
    sizes = sizes or [0.0] * length
    order = sorted(range(length), key=lambda index: -sizes[index])
    return [order[index % length] for index in range(number)]


def _has_sizes(dataset: Any) -> bool:
    get = getattr(dataset, "get_data_info", None)
    return get is not None and {"height", "width"} <= set(get(0))


def _resized_area(dataset: Any, index: int, scale: tuple[float, float] | None) -> float:
    """Area after the pipeline's resizing, which keeps the ratio of the sides within a scale, e.g. 1333 × 800."""
    info = dataset.get_data_info(index)
    width, height = info["width"], info["height"]
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
