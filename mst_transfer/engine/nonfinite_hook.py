"""Keeps buffers, averages and logs free of a step that is left out, and records it."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from mmengine.hooks import EMAHook, Hook, RuntimeInfoHook
from torch import Tensor, nn

from mst_transfer.engine.nonfinite import GuardedOptimWrapper
from mst_transfer.runs.nonfinite_steps import DEFAULT_LIMIT, NonfiniteSteps, finite

ADVICE = (
    "Next step: look at those images and their annotations; resume from the checkpoint with a lower "
    "optim_wrapper.optimizer.lr or with optim_wrapper.clip_grad=dict(max_norm=1.0); with --amp, try without it or "
    "with +optim_wrapper.dtype=bfloat16"
)
WINDOW_START = "buffers_before_window"  # entry of a checkpoint that is written while gradients are being added up


def changing_buffers(model: nn.Module) -> list[Tensor]:
    """Buffers that a forward pass may change: running statistics, and counters; not tables of indices."""
    return [b for b in model.buffers() if b.is_floating_point() or b.ndim == 0]


class NonfiniteHook(Hook):
    """Puts buffers back after a step that was left out, keeps averages of weights and logs free of it, and records it.

    So many steps in a row as ``limit`` says end the run.
    """

    def __init__(self, limit: int = DEFAULT_LIMIT) -> None:
        self.limit = limit
        self._buffers: list[Tensor] = []
        self._loaded: list[Tensor] = []
        self._window: list[tuple[list[str], dict[str, Any]]] = []

    def before_train(self, runner: Any) -> None:
        """Looks for averages of weights, and for optimizer wrappers that nothing is known about."""
        self._steps = NonfiniteSteps(runner, self.limit)
        if not isinstance(runner.optim_wrapper, GuardedOptimWrapper):
            runner.logger.warning(
                f"optim_wrapper.type is {type(runner.optim_wrapper).__name__}: steps whose loss or gradient is not "
                "finite are not left out, as they are with OptimWrapper and AmpOptimWrapper"
            )
            return
        for hook in runner.hooks:
            if isinstance(hook, RuntimeInfoHook):  # it hands losses to the log
                hook.after_train_iter = partial(_finite_only, hook.after_train_iter)
            if isinstance(hook, EMAHook):
                # an average that has begun would move; one that has not is a copy of weights that have not changed
                hook.after_train_iter = partial(_unless_left_out, hook.after_train_iter)

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Remembers the buffers where a step begins."""
        wrapper = runner.optim_wrapper
        if isinstance(wrapper, GuardedOptimWrapper) and wrapper.begins_window():
            self._window.clear()
            self._buffers = [b.detach().clone() for b in changing_buffers(runner.model)]
        elif self._loaded:  # resumed inside a window
            self._buffers = [b.to(c.device) for b, c in zip(self._loaded, changing_buffers(runner.model), strict=True)]
        self._loaded = []

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Writes down a step that was left out.

        Raises:
            FloatingPointError: too many in a row; in every process.
        """
        wrapper = runner.optim_wrapper
        if not isinstance(wrapper, GuardedOptimWrapper):
            return
        self._window.append((image_paths(data_batch), dict(outputs or {})))
        if not wrapper.stepped:
            return
        if not wrapper.left_out:
            self._steps.taken()
            return
        with torch.no_grad():
            for buffer, before in zip(changing_buffers(runner.model), self._buffers, strict=bool(self._buffers)):
                buffer.copy_(before)
        self._steps.count()
        if wrapper.excused:
            return
        values: dict[str, Any] = {}
        for position, (_, losses) in enumerate(self._window):
            suffix = f" of micro-batch {position}" if len(self._window) > 1 else ""
            values.update({f"{name}{suffix}": _number(value) for name, value in losses.items()})
        self._steps.left_out(runner.iter, values, [path for paths, _ in self._window for path in paths], ADVICE)

    def before_save_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """A step that is under way may yet be left out."""
        wrapper = runner.optim_wrapper
        if isinstance(wrapper, GuardedOptimWrapper) and not wrapper.begins_window() and self._buffers:
            checkpoint[WINDOW_START] = [buffer.cpu() for buffer in self._buffers]

    def after_load_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """Takes that up."""
        self._loaded = list(checkpoint.get(WINDOW_START) or []) if runner._resume else []


def _unless_left_out(update: Any, runner: Any, *args: Any, **kwargs: Any) -> None:
    if not getattr(runner.optim_wrapper, "left_out", False):
        update(runner, *args, **kwargs)


def _finite_only(
    update: Any, runner: Any, batch_idx: int, data_batch: Any = None, outputs: dict[str, Any] | None = None
) -> None:
    update(runner, batch_idx, data_batch, finite(outputs or {}))


def image_paths(data_batch: Any) -> list[str]:
    """The files that a batch was made of, as far as its data samples say."""
    samples = data_batch.get("data_samples") if isinstance(data_batch, dict) else None
    if isinstance(samples, dict):  # several branches, as in semi-supervised training
        samples = [sample for branch in samples.values() for sample in branch]
    return [str(getattr(sample, "img_path", "not named")) for sample in samples or ()]


def _number(value: Any) -> Any:
    return value.tolist() if isinstance(value, Tensor) else value
