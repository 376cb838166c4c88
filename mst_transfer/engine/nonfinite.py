"""Leaves out a step, in every process, if its loss or gradient is not finite in any, and keeps all else free of it.

One number a process and step says whether all is well. It is reduced on the device and read together with the norm of
the gradients, so that a step waits for the device once. The same reduction carries the wish to stop: see
``mst_transfer.runs.stop``.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import astuple
from functools import partial
from typing import Any

import torch
from mmengine.hooks import EMAHook, Hook, RuntimeInfoHook
from mmengine.logging import print_log
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from torch import Tensor, nn
from torch import distributed as dist

from mst_transfer.devices.number_format import AUTO, NumberFormat, quickest_format, set_tf32
from mst_transfer.registry import OPTIM_WRAPPERS
from mst_transfer.runs import stop
from mst_transfer.runs.checkpoints import decided_by_main
from mst_transfer.runs.nonfinite_steps import DEFAULT_LIMIT, NonfiniteSteps, finite, lower_loss_scale

_COUNTERPARTS = {"OptimWrapper": "GuardedOptimWrapper", "AmpOptimWrapper": "GuardedAmpOptimWrapper"}
ADVICE = (
    "Next step: look at those images and their annotations; resume from the checkpoint with a lower "
    "optim_wrapper.optimizer.lr or with optim_wrapper.clip_grad=dict(max_norm=1.0); with --amp, try without it or "
    "with +optim_wrapper.dtype=bfloat16"
)
WINDOW_START = "buffers_before_window"  # entry of a checkpoint that is written while gradients are being added up


def guarded(optim_wrapper: dict[str, Any]) -> dict[str, Any]:
    """A wrapper's config with its guarded counterpart in the type's place; unchanged if there is none."""
    kind = optim_wrapper.get("type", "OptimWrapper")
    name = kind.__name__ if isinstance(kind, type) else str(kind).removeprefix("mmengine.")
    if name not in _COUNTERPARTS or "optimizer" not in optim_wrapper:
        return optim_wrapper
    return {**optim_wrapper, "type": f"mst_transfer.{_COUNTERPARTS[name]}"}


@OPTIM_WRAPPERS.register_module()
class GuardedOptimWrapper(OptimWrapper):
    """mmengine's ``OptimWrapper`` with the same arguments.

    Args:
        tf32: whether float32 products may round to TF32.
        cpu_dtype: of autocast on the CPU: None for none, ``bfloat16``, or ``auto``: bfloat16 where it is quicker, as
            measured in the first step; a resumed run keeps what was chosen.

    Attributes:
        stepped: whether the newest micro-batch ended a step, taken or left out.
        left_out: whether that step was left out.
        excused: whether a loss scale that was too high explains it.
    """

    carries_stop = True  # for runs.stop_hook
    stepped = left_out = excused = False
    _loss: Tensor | None = None

    def __init__(self, *args: Any, tf32: bool = True, cpu_dtype: str | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if cpu_dtype not in (None, AUTO, "float32", "bfloat16"):
            raise ValueError(f"optim_wrapper.cpu_dtype={cpu_dtype!r} must be None, 'auto', 'float32' or 'bfloat16'")
        self.cpu_dtype = cpu_dtype
        if told := set_tf32(tf32, self.optimizer.param_groups[0]["params"][0].device):
            print_log(told, logger="current")

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """The forward pass of a training step."""
        on_cpu = next(model.parameters()).device.type == "cpu"
        if self.cpu_dtype == AUTO and on_cpu:
            chosen = NumberFormat(*decided_by_main(lambda: astuple(quickest_format(model))))
            self.cpu_dtype = chosen.name
            print_log(f"number format: {chosen.name} ({chosen.why})", logger="current")
        half = on_cpu and self.cpu_dtype == "bfloat16"
        with super().optim_context(model), torch.autocast("cpu", torch.bfloat16) if half else nullcontext():
            yield

    def state_dict(self) -> dict:
        """mmengine's, and the number format on the CPU if one was chosen."""
        return super().state_dict() | ({} if self.cpu_dtype is None else {"cpu_dtype": self.cpu_dtype})

    def load_state_dict(self, state_dict: dict) -> None:
        """Inverse of ``state_dict``."""
        state_dict = dict(state_dict)
        begun_in = state_dict.pop("cpu_dtype", None)
        if self.cpu_dtype == AUTO:
            self.cpu_dtype = begun_in or AUTO
        if begun_in not in (None, AUTO):
            told = (
                f"number format: the run began in {begun_in} and goes on in {self.cpu_dtype or 'float32'}; --amp keeps"
            )
            print_log(f"{told} what it began in, optim_wrapper.cpu_dtype=… changes it", logger="current")
        super().load_state_dict(state_dict)

    def update_params(self, loss: Tensor, step_kwargs: dict | None = None, zero_kwargs: dict | None = None) -> None:
        """Backward, and a step if the window of accumulation is full."""
        self.stepped = self.left_out = self.excused = False
        self._loss = loss.detach() if self._loss is None else self._loss + loss.detach()
        super().update_params(loss, step_kwargs, zero_kwargs)

    def begins_window(self) -> bool:
        """Whether no gradient is accumulated yet."""
        return self._loss is None

    def step(self, **kwargs: Any) -> None:
        """Clips and updates, unless something is not finite somewhere."""
        self._unscale()
        norm = self._clipped_norm()
        bad_loss, self._loss = ~torch.isfinite(norm.new_zeros(()) if self._loss is None else self._loss), None
        flags = torch.stack([(~norm.isfinite()).float(), bad_loss.any().float(), norm.new_full((), stop.wish())])
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(flags, op=dist.ReduceOp.MAX)
        bad_norm, bad, wish, value = torch.cat([flags, norm.detach().reshape(1)]).tolist()
        stop.agree(wish)
        if self.clip_grad_kwargs and self.grad_name == "grad_norm" and not bad_norm:
            self.message_hub.update_scalar(f"train/{self.grad_name}", value)
        self.stepped, self.left_out = True, bool(bad_norm or bad)
        if self.left_out:
            self.excused = self._leave_out() and not bad
        else:
            self._update(**kwargs)

    def _clipped_norm(self) -> Tensor:
        """Clips as the config says; the norm of all gradients before that, float32 []."""
        grads = [p for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]
        if not grads:
            device = self.optimizer.param_groups[0]["params"][0].device
            return torch.zeros((), device=device)
        if self.clip_grad_kwargs and self.grad_name == "grad_norm":
            return self.clip_func(grads, **self.clip_grad_kwargs).float()
        norm = torch.stack(torch._foreach_norm([p.grad for p in grads])).float().norm()
        if self.clip_grad_kwargs:
            self.clip_func(grads, **self.clip_grad_kwargs)
        return norm

    def _unscale(self) -> None:
        """Gradients as they are without loss scaling."""

    def _update(self, **kwargs: Any) -> None:
        self.optimizer.step(**kwargs)

    def _leave_out(self) -> bool:
        """Whether the next step will go about it in another way."""
        return False


@OPTIM_WRAPPERS.register_module()
class GuardedAmpOptimWrapper(GuardedOptimWrapper, AmpOptimWrapper):
    """mmengine's ``AmpOptimWrapper`` with the same arguments. A loss scale that is too high is no fault."""

    def _unscale(self) -> None:
        self.loss_scaler.unscale_(self.optimizer)

    def _update(self, **kwargs: Any) -> None:
        self.loss_scaler.step(self.optimizer, **kwargs)
        self.loss_scaler.update(self._scale_update_param)

    def _leave_out(self) -> bool:
        return lower_loss_scale(self.loss_scaler, self._scale_update_param)


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
