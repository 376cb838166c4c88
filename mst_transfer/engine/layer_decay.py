"""Layer-wise learning rate decay for fine-tuning: the nearer to the image, the smaller the steps.

Layer k of n gets ``lr * layer_decay_rate ** (n - 1 - k)``; everything outside the backbone belongs to layer n - 1 and
keeps ``lr``. A backbone takes part by having ``get_layer_depth(param_name, prefix) -> (k, n)``, as all adapters of this
package and those of mmpretrain do. As in BEiT, MAE and ViTDet, vectors (norms, biases) and the parameters that the
backbone names in ``no_weight_decay()`` (class token, position embeddings) are not decayed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mmengine.optim import DefaultOptimWrapperConstructor
from torch import nn

from mst_transfer.registry import OPTIM_WRAPPER_CONSTRUCTORS

_OPTIONS = ("layer_decay_rate", "custom_keys")
_CUSTOM_OPTIONS = ("lr_mult", "decay_mult")


@dataclass(frozen=True)
class ParameterPlan:
    """How one parameter will be optimised: its layer k, learning rate and weight decay."""

    name: str
    parameter: nn.Parameter
    layer: int
    lr: float
    weight_decay: float


def plan_parameters(
    model: nn.Module,
    lr: float,
    weight_decay: float,
    layer_decay_rate: float,
    custom_keys: dict[str, dict[str, float]] | None = None,
) -> Iterator[ParameterPlan]:
    """Learning rate and weight decay of every trainable parameter.

    Args:
        model: a detector or segmentor whose ``backbone`` has ``get_layer_depth``.
        lr: learning rate of the last layer and the heads.
        weight_decay: weight decay of matrices.
        layer_decay_rate: factor from one layer to the next nearer to the image, in (0, 1].
        custom_keys: part of a name → ``lr_mult`` and ``decay_mult``, multiplied in; the longest part wins.

    Raises:
        ValueError: if the backbone has no ``get_layer_depth``.
    """
    backbone: Any = getattr(model, "backbone", None)
    if not hasattr(backbone, "get_layer_depth"):
        raise ValueError(
            f"{type(model).__name__}.backbone is a {type(backbone).__name__} without "
            "get_layer_depth(param_name, prefix): layer decay cannot order its parameters. Use an mst_transfer "
            "backbone, or drop constructor='mst_transfer.LayerDecayOptimWrapperConstructor'."
        )
    undecayed = {f"backbone.{name}" for name in getattr(backbone, "no_weight_decay", set)()}
    keys = sorted(custom_keys or {}, key=len, reverse=True)
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        layer, num_layers = backbone.get_layer_depth(name, "backbone.")
        if not name.startswith("backbone."):
            layer = num_layers - 1
        custom = next(((custom_keys or {})[key] for key in keys if key in name), {})
        decayed = parameter.ndim > 1 and not name.endswith(".bias") and name not in undecayed
        yield ParameterPlan(
            name=name,
            parameter=parameter,
            layer=layer,
            lr=lr * layer_decay_rate ** (num_layers - 1 - layer) * custom.get("lr_mult", 1.0),
            weight_decay=weight_decay * custom.get("decay_mult", 1.0) if decayed else 0.0,
        )


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecayOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """Builds the optimizer with one parameter group for each (layer, learning rate, weight decay).

    Options, under ``optim_wrapper.paramwise_cfg``: ``layer_decay_rate`` (required, in (0, 1]; 1 = no decay) and
    ``custom_keys``, as for mmengine's own constructor but on top of the layer's rate. See ``mst params``.
    """

    def _validate_cfg(self) -> None:
        super()._validate_cfg()
        unknown = sorted(set(self.paramwise_cfg) - set(_OPTIONS))
        if unknown:
            raise ValueError(f"paramwise_cfg has unknown options {unknown}; allowed: {_OPTIONS}")
        rate = self.paramwise_cfg.get("layer_decay_rate")
        if not isinstance(rate, int | float) or not 0 < rate <= 1:
            raise ValueError(f"paramwise_cfg.layer_decay_rate={rate!r} must be in (0, 1], e.g. 0.75")
        for key, options in self.paramwise_cfg.get("custom_keys", {}).items():
            if set(options) - set(_CUSTOM_OPTIONS):
                raise ValueError(f"custom_keys[{key!r}]={dict(options)}: allowed options are {_CUSTOM_OPTIONS}")
        if self.base_lr is None or self.base_wd is None:
            raise ValueError(f"optimizer.lr={self.base_lr!r} and optimizer.weight_decay={self.base_wd!r} must be given")

    def add_params(self, params: list[dict], module: nn.Module, **kwargs: Any) -> None:
        """Appends the parameter groups of ``module``, the whole model, to ``params``."""
        groups: dict[tuple, dict] = {}
        for plan in plan_parameters(module, self.base_lr, self.base_wd, **self.paramwise_cfg):
            rates = dict(layer=plan.layer, lr=plan.lr, weight_decay=plan.weight_decay)
            group = groups.setdefault(tuple(rates.values()), dict(rates, params=[], param_names=[]))
            group["params"].append(plan.parameter)
            group["param_names"].append(plan.name)
        params.extend(groups[key] for key in sorted(groups))
