"""Layer-wise learning rate decay for fine-tuning: the nearer to the image, the smaller the steps.

Layer k of n gets ``lr * layer_decay_rate ** (n - 1 - k)``; everything outside the backbone belongs to layer n - 1 and
keeps ``lr``. A backbone takes part by having ``get_layer_depth(param_name, prefix) -> (k, n)``, as all adapters of this
package and those of mmpretrain do. As in BEiT, MAE and ViTDet, vectors (norms, biases) and the parameters that the
backbone names in ``no_weight_decay()`` (class token, position embeddings) are not decayed.
"""

from typing import Any

from mmengine.optim import DefaultOptimWrapperConstructor
from torch import nn

from mst_transfer.registry import OPTIM_WRAPPER_CONSTRUCTORS

_OPTIONS = ("layer_decay_rate", "custom_keys")
_CUSTOM_OPTIONS = ("lr_mult", "decay_mult")


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecayOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """Builds the optimizer with one parameter group for each (layer, learning rate, weight decay).

    Options, under ``optim_wrapper.paramwise_cfg``: ``layer_decay_rate`` (required, in (0, 1]; 1 = no decay) and
    ``custom_keys``: part of a name → ``lr_mult`` and ``decay_mult``, as for mmengine's own constructor but on top of
    the layer's rate; the longest part wins. See ``mst params``.
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
        """Appends the parameter groups of ``module``, the whole model, to ``params``.

        Raises:
            ValueError: if its ``backbone`` has no ``get_layer_depth``.
        """
        backbone: Any = getattr(module, "backbone", None)
        if not hasattr(backbone, "get_layer_depth"):
            raise ValueError(
                f"{type(module).__name__}.backbone is a {type(backbone).__name__} without "
                "get_layer_depth(param_name, prefix): layer decay cannot order its parameters. Use an mst_transfer "
                "backbone, or drop constructor='mst_transfer.LayerDecayOptimWrapperConstructor'."
            )
        undecayed = {f"backbone.{name}" for name in getattr(backbone, "no_weight_decay", set)()}
        rate, multipliers = self.paramwise_cfg["layer_decay_rate"], self.paramwise_cfg.get("custom_keys") or {}
        groups: dict[tuple, dict] = {}
        for name, parameter in module.named_parameters():
            if not parameter.requires_grad:
                continue
            layer, num_layers = backbone.get_layer_depth(name, "backbone.")
            if not name.startswith("backbone."):
                layer = num_layers - 1
            longest = max((key for key in multipliers if key in name), key=len, default=None)
            custom = multipliers[longest] if longest else {}
            decayed = parameter.ndim > 1 and not name.endswith(".bias") and name not in undecayed
            lr = self.base_lr * rate ** (num_layers - 1 - layer) * custom.get("lr_mult", 1.0)
            weight_decay = self.base_wd * custom.get("decay_mult", 1.0) if decayed else 0.0
            options = dict(layer=layer, lr=lr, weight_decay=weight_decay)
            group = groups.setdefault(tuple(options.values()), dict(options, params=[], param_names=[]))
            group["params"].append(parameter)
            group["param_names"].append(name)
        params.extend(groups[key] for key in sorted(groups))
