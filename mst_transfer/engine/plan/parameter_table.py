"""Lists layer, learning rate and weight decay of every parameter, as a config's optimizer would set them.

The optimizer is built as for training, from the config's own ``optim_wrapper`` and constructor, on a model without
numbers; the rows are read from its parameter groups. The rates are those before warm-up and ``--auto-scale-lr``.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mst_transfer.engine.plan.meta_model import build_meta_model

_AMP_OPTIONS = ("loss_scale", "dtype", "use_fsdp")


@dataclass(frozen=True)
class ParameterRow:
    """How one parameter is optimised."""

    name: str  # in the whole model
    shape: tuple[int, ...]
    layer: int | None = None  # for layer-wise decay, from 0 at the image; None where the constructor knows no layers
    lr: float | None = None  # None for a parameter that does not train
    weight_decay: float | None = None

    @property
    def num_values(self) -> int:
        """Numbers in the tensor."""
        return math.prod(self.shape)


def parameter_rows(cfg: Any) -> list[ParameterRow]:
    """One row for each parameter of the model of a detector's or segmentor's config, in the model's order.

    Raises:
        ValueError: There is no model or no optimizer, or a trainable parameter is in none of its groups.
    """
    from mmengine.optim import build_optim_wrapper

    if "optimizer" not in (cfg.get("optim_wrapper") or {}):
        raise ValueError(f"{cfg.filename}: no optim_wrapper.optimizer, so nothing says how it would train")
    model = build_meta_model(cfg).train()
    options = copy.deepcopy(cfg.optim_wrapper)
    options.type = "OptimWrapper"  # mixed precision needs a GPU and changes no rate
    for option in _AMP_OPTIONS:
        options.pop(option, None)
    groups = {
        id(parameter): group
        for group in build_optim_wrapper(model, options).optimizer.param_groups
        for parameter in group["params"]
    }
    rows = []
    for name, parameter in model.named_parameters():
        group, shape = groups.get(id(parameter)), tuple(parameter.shape)
        if not parameter.requires_grad:
            rows.append(ParameterRow(name, shape))
        elif group is not None:
            rows.append(ParameterRow(name, shape, group.get("layer"), group["lr"], group["weight_decay"]))
        else:
            raise ValueError(
                f"{cfg.filename}: {name} trains, but the optimizer has no group that holds it. Next step: look at "
                "optim_wrapper.paramwise_cfg and its constructor"
            )
    return rows


def group_rows(rows: Sequence[ParameterRow]) -> list[list[ParameterRow]]:
    """Rows with equal layer, rate and decay, by layer and then by rate; those that do not train come first."""
    groups: dict[tuple, list[ParameterRow]] = {}
    for row in rows:
        key = (row.lr is not None, -1 if row.layer is None else row.layer, row.lr or 0.0, row.weight_decay or 0.0)
        groups.setdefault(key, []).append(row)
    return [groups[key] for key in sorted(groups)]
