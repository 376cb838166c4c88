"""What an adapter starts from: a checkpoint, with a report of what it covered, or random weights, with a warning."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from mmengine.logging import print_log
from torch import nn

from mst_transfer.checkpoint import LoadReport, load_backbone


def load_or_warn(
    adapter: str, model: nn.Module, checkpoint: str | None, role: str | None, unused: Sequence[str], **options: Any
) -> LoadReport | None:
    """Loads a checkpoint into an adapter's timm model.

    Args:
        adapter: name of the class, for the warning.
        model: the timm model.
        checkpoint: path; None for random weights.
        role, unused, **options: see :func:`mst_transfer.checkpoint.load_backbone`.

    Returns:
        What was loaded; None for random weights.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is of another architecture, or does not cover the backbone.
    """
    if checkpoint is None:
        print_log(f"{adapter}: random initialisation (checkpoint=None)", logger="current", level=logging.WARNING)
        return None
    report = load_backbone(model, checkpoint, role=role, unused=unused, **options)
    print_log(report.table(), logger="current", level=logging.WARNING if report.remark else logging.INFO)
    return report
