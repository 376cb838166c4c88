"""Optimizer wrappers that leave out a step, in every process, if its loss or gradient is not finite in any.

One number a process and step says whether all is well. It is reduced on the device and read together with the norm of
the gradients, so that a step waits for the device once. The same reduction carries the wish to stop: see
:mod:`mst_transfer.runs.stop`.
"""

from __future__ import annotations

from typing import Any

import torch
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from torch import Tensor
from torch import distributed as dist

from mst_transfer.registry import OPTIM_WRAPPERS
from mst_transfer.runs import stop
from mst_transfer.runs.nonfinite_steps import lower_loss_scale

_COUNTERPARTS = {"OptimWrapper": "GuardedOptimWrapper", "AmpOptimWrapper": "GuardedAmpOptimWrapper"}


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

    Attributes:
        stepped: whether the newest micro-batch ended a step, taken or left out.
        left_out: whether that step was left out.
        excused: whether a loss scale that was too high explains it.
    """

    carries_stop = True  # for runs.stop_hook
    stepped = left_out = excused = False
    _loss: Tensor | None = None

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
        flags = torch.stack([(~norm.isfinite()).float(), bad_loss.any().float(), norm.new_tensor(stop.wish())])
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
