"""A config's model without its numbers: on torch's meta device it has every shape and takes no memory or time."""

import copy
import importlib
import warnings
from typing import Any

from torch import nn


def build_meta_model(cfg: Any) -> nn.Module:
    """The detector or segmentor of a config, in evaluation mode, on the meta device. No weights are read.

    Raises:
        ValueError: The config has no model, is of another library, or the model cannot be built.
    """
    import torch
    from mmengine.registry import init_default_scope

    from mst_transfer.engine.fit.devices import adapt_to_devices

    scope = cfg.get("default_scope")
    if cfg.get("model") is None or scope not in ("mmdet", "mmseg"):
        raise ValueError(
            f"{cfg.filename}: default_scope={scope!r}: a model is needed, and default_scope 'mmdet' "
            "(detectors) or 'mmseg' (segmentors). Next step: inherit the library's _base_/default_runtime.py"
        )
    cfg = copy.deepcopy(cfg)
    adapt_to_devices(cfg, world_size=1, on_cuda=False)
    init_default_scope(scope)
    importlib.import_module(f"{scope}.models")
    registry = importlib.import_module(f"{scope}.registry").MODELS
    try:
        with torch.device("meta"), warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=UserWarning, module="mmseg")  # of what mmseg calls itself
            model: nn.Module = registry.build(cfg.model)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{cfg.filename}: the model cannot be built: {error}") from error
    return model.eval()
