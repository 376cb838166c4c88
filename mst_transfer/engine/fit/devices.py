"""Adapts a config to the devices of this run. What it changes, it returns as sentences for the log."""

from collections.abc import Iterator
from typing import Any

from mst_transfer.configs.datasets import LOADERS
from mst_transfer.runs import launch

GLOO_SYNC_BN = "mst_transfer.GlooSyncBN"
SAME_BUFFERS_HOOK = "mst_transfer.SameBuffersHook"
SEGMENTOR = "mst_transfer.SlideEncoderDecoder"


def adapt_to_devices(cfg: Any, world_size: int, on_cuda: bool) -> list[str]:
    """Changes ``cfg`` in place so that it runs in ``world_size`` processes here; returns a sentence for each change."""
    notices = []
    if world_size == 1 or not on_cuda:
        synced = [node for node in all_dicts(cfg.model) if node.get("type") in ("SyncBN", "mmcv.SyncBN")]
        kind, reason = ("BN", "one process") if world_size == 1 else (GLOO_SYNC_BN, "on the CPU")
        for node in synced:
            node["type"] = kind
        if synced:
            notices.append(f"SyncBN became {kind} in {len(synced)} places ({reason})")
    notices += _pad_to_patches(cfg)
    hooks = list(cfg.get("custom_hooks") or ())
    if world_size > 1 and all(hook.get("type") != SAME_BUFFERS_HOOK for hook in hooks):
        cfg.custom_hooks = [*hooks, dict(type=SAME_BUFFERS_HOOK)]
    if cfg.get("model_wrapper_cfg") is None:
        wrapper = launch.model_wrapper_cfg(cfg.get("find_unused_parameters", False))
        if wrapper is not None:
            cfg.model_wrapper_cfg = wrapper
            notices.append(f"{world_size} processes on the CPU, joined by gloo")
    for name in LOADERS:
        loader = cfg.get(name)
        if loader and loader.get("num_workers") == 0 and loader.get("persistent_workers"):
            loader["persistent_workers"] = False
    return notices


def _pad_to_patches(cfg: Any) -> Iterator[str]:
    """mmseg's own segmentor stretches the maps of images that are no multiple of the patch; ours has its parameters."""
    for node in all_dicts(cfg.model):
        backbone = str((node.get("backbone") or {}).get("type"))
        if node.get("type") in ("EncoderDecoder", "mmseg.EncoderDecoder") and backbone.startswith("mst_transfer."):
            node["type"] = SEGMENTOR
            yield f"EncoderDecoder became {SEGMENTOR}, which pads images to whole patches of {backbone}"


def check_amp(cfg: Any, on_cuda: bool) -> None:
    """Refuses a config's mixed precision with loss scaling where there is no GPU.

    Raises:
        ValueError: The config asks for it, and there is none.
    """
    if (cfg.get("optim_wrapper") or {}).get("type") == "AmpOptimWrapper" and not on_cuda:
        raise ValueError(
            "optim_wrapper.type='AmpOptimWrapper' needs a GPU, and torch sees none. Next step: write "
            "optim_wrapper.type='OptimWrapper' and give --amp, which takes bfloat16 on the CPU where that is quicker, "
            "or run `mst doctor` to see why no GPU is found"
        )


def enable_amp(cfg: Any) -> None:
    """Makes the optimizer wrapper use mixed precision where it is quicker.

    On CUDA bfloat16 where the GPU has it, else float16 with loss scaling; on the CPU bfloat16 if the first step's
    measurement says so.

    Raises:
        ValueError: The config's wrapper is of another kind than ``OptimWrapper``.
    """
    kind = cfg.optim_wrapper.get("type", "OptimWrapper")
    if kind not in ("OptimWrapper", "AmpOptimWrapper"):
        raise ValueError(f"--amp: optim_wrapper.type={kind!r} has no known AMP counterpart; 'OptimWrapper' has")
    import torch

    from mst_transfer.devices.number_format import AUTO, cuda_format

    if not torch.cuda.is_available():
        if kind == "OptimWrapper":
            cfg.optim_wrapper.cpu_dtype = AUTO
        return
    cfg.optim_wrapper.type = "AmpOptimWrapper"
    cfg.optim_wrapper.setdefault("loss_scale", "dynamic")
    if cuda_format().name == "bfloat16":
        cfg.optim_wrapper.setdefault("dtype", "bfloat16")


def enable_auto_scale_lr(cfg: Any) -> None:
    """Makes mmengine scale the learning rate by the ratio of this run's batch size to the config's base.

    Raises:
        ValueError: The config names no base batch size.
    """
    if "base_batch_size" not in (cfg.get("auto_scale_lr") or {}):
        raise ValueError(
            "--auto-scale-lr: the config has no auto_scale_lr.base_batch_size. Next step: add "
            "auto_scale_lr = dict(base_batch_size=N), N being the batch size that its learning rate is for"
        )
    cfg.auto_scale_lr.enable = True


def all_dicts(node: Any) -> Iterator[Any]:
    """All dicts of a nested config."""
    if isinstance(node, dict):
        yield node
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        for child in node:
            yield from all_dicts(child)
