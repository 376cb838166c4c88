"""Finds the numbers of classes of a model's heads, compares them with the data and sets them."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from mst_transfer.preflight.findings import Finding

_SEGMENTATION_HEAD = re.compile(r"model\.(decode|auxiliary)_head(\.\d+)?")
_WITHOUT_CLASSES = ("rpn_head", "backbone")  # what they call classes is not the dataset's


def find_num_classes(node: Any, path: str = "model") -> Iterator[tuple[str, int]]:
    """Every head with a number of classes: its path in the config, and the number."""
    for place, head in _heads(node, path):
        if isinstance(head.get("num_classes"), int):
            yield place, head["num_classes"]


def check_heads(model: Mapping[str, Any], num_classes: int, place: str) -> Iterator[Finding]:
    """Compares every head, and every list of weights for the classes, with the classes of one dataset."""
    for path, value in find_num_classes(model):
        if value != num_classes:
            yield Finding(
                f"{path}.num_classes={value}, but {place} has {num_classes} classes; set {path}.num_classes="
                f"{num_classes}, or metainfo.classes of the dataset"
            )
    for path, head in _heads(model, "model"):
        weights = head.get("class_weight")
        if isinstance(weights, list | tuple) and len(weights) not in (num_classes, num_classes + 1):
            yield Finding(
                f"{path}.class_weight has {len(weights)} weights, but {place} has {num_classes} classes: give "
                f"{num_classes} (or {num_classes + 1} with one for 'no object'), or set it to None"
            )


def set_num_classes(model: Any, num_classes: int, former: int | None) -> list[str]:
    """Gives every head ``num_classes``, in place.

    ``former`` is the number that the heads may have had instead; None accepts any on which they agree.

    Returns:
        Paths of the heads that were changed.

    Raises:
        ValueError: if a head has yet another number, or weights for other classes that cannot be resized.
    """
    others = {path: value for path, value in find_num_classes(model) if value != num_classes}
    allowed = {former} if former is not None else {next(iter(others.values()), num_classes)}
    wrong = {path: value for path, value in others.items() if value not in allowed}
    if wrong:
        settings = ", ".join(f"{path}.num_classes={value}" for path, value in others.items())
        raise ValueError(
            f"the data have {num_classes} classes, but the config sets {settings}: leave num_classes out, set it to "
            f"{num_classes}, or name the classes in metainfo.classes of every dataset"
        )
    for path, head in _heads(model, "model"):
        _resize_weights(path, head, num_classes)
        if path in others:
            head["num_classes"] = num_classes
    return list(others)


def _resize_weights(path: str, head: Any, num_classes: int) -> None:
    """Class weights that are all equal, with or without one for 'no object' behind them, follow the number."""
    weights = head.get("class_weight")
    if not isinstance(weights, list | tuple) or len(weights) in (num_classes, num_classes + 1):
        return
    *classes, last = weights
    if len(set(classes)) != 1:
        raise ValueError(
            f"{path}.class_weight has {len(weights)} weights for other classes than the {num_classes} of the data: "
            "give as many, or set it to None"
        )
    head["class_weight"] = [classes[0]] * num_classes + ([] if last == classes[0] else [last])


def _heads(node: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(node, Mapping):
        yield path, node
        for key, value in node.items():
            if key not in _WITHOUT_CLASSES:
                yield from _heads(value, f"{path}.{key}")
    elif isinstance(node, list | tuple):
        for index, value in enumerate(node):
            yield from _heads(value, f"{path}.{index}")


def ignored_values(model: Mapping[str, Any]) -> dict[str, int]:
    """Path → ``ignore_index`` of the segmentation heads, and what masks are padded with; mmseg's default is 255."""
    heads = ((place, head) for place, head in _heads(model, "model") if _SEGMENTATION_HEAD.fullmatch(place))
    values = {f"{place}.ignore_index": head.get("ignore_index", 255) for place, head in heads}
    values["model.data_preprocessor.seg_pad_val"] = (model.get("data_preprocessor") or {}).get("seg_pad_val", 255)
    return {place: value for place, value in values.items() if isinstance(value, int)}
