"""DINO's parameter groups, per-parameter gradient clipping and mixed precision, on CPU and GPU alike."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import astuple

import torch
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIMIZERS
from torch import Tensor, nn
from torch.optim import Optimizer

from mst_transfer.devices.number_format import AUTO, NumberFormat, quickest_format, set_tf32
from mst_transfer.runs.checkpoints import decided_by_main
from mst_transfer.runs.nonfinite_steps import lower_loss_scale
from pretrain.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS

DTYPES = {AUTO: None, None: None, "float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}


def parameter_groups(model: nn.Module) -> list[dict]:
    """Two groups: matrices get weight decay; biases, norms and other vectors get none (DINO).

    Swin's tables of relative position biases count as biases, as in its authors' recipe.
    """
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    vectors = [p for name, p in trained if p.ndim == 1 or name.endswith((".bias", ".relative_position_bias_table"))]
    seen = {id(p) for p in vectors}
    matrices = [p for _, p in trained if id(p) not in seen]
    return [
        {"params": matrices, "apply_weight_decay": True},
        {"params": vectors, "weight_decay": 0.0, "apply_weight_decay": False},
    ]


@OPTIM_WRAPPERS.register_module()
class PretrainOptimWrapper(OptimWrapper):
    """Optimiser with autocast, loss scaling for float16 and clipping of each parameter's gradient.

    Args:
        optimizer: over ``parameter_groups``.
        dtype: ``bfloat16`` or ``float16`` for autocast, None or ``float32`` for full precision; ``auto``: the quickest
            here (``settle_format``), which a resumed run keeps.
        clip_grad: largest norm of any single parameter's gradient (DINO: 3.0); None for no clipping.
        tf32: on CUDA, let products that stay in float32 round to TF32.
    """

    carries_stop = True  # for mst_transfer.runs.stop_hook: the loop's reduction of a step's values does

    def __init__(
        self, optimizer: Optimizer, dtype: str | None = None, clip_grad: float | None = 3.0, tf32: bool = True
    ) -> None:
        super().__init__(optimizer)
        if dtype not in DTYPES:
            known = "auto, bfloat16, float16, float32 or None"
            raise ValueError(f"optim_wrapper.dtype = {dtype!r} is not known; choose {known}")
        if clip_grad is not None and clip_grad <= 0:
            raise ValueError(f"optim_wrapper.clip_grad = {clip_grad} must be positive, or None for no clipping")
        self.base_param_settings = None
        self.clip_norm = clip_grad
        device = optimizer.param_groups[0]["params"][0].device
        self.device_type, self.products = device.type, set_tf32(tf32, device)
        self._open = dtype == AUTO
        self._take(NumberFormat(dtype or "float32", "as the config says"))

    def _take(self, chosen: NumberFormat) -> None:
        self.format, self.dtype = chosen, DTYPES[chosen.name]
        self.scaler = torch.amp.GradScaler(self.device_type) if chosen.name == "float16" else None

    def settle_format(self, model: nn.Module, tokens: Sequence[int]) -> None:
        """Chooses the quickest format of a model for all processes, if neither config nor checkpoint says it.

        ``tokens`` are their numbers in the views, for each of their sizes.
        """
        if self.format.name == AUTO:
            self._take(NumberFormat(*decided_by_main(lambda: astuple(quickest_format(model, tokens)))))

    def autocast(self) -> AbstractContextManager:
        """Context for the forward pass."""
        if self.dtype is None:
            return nullcontext()
        return torch.autocast(self.device_type, dtype=self.dtype)

    def set_hyperparameters(self, lr: float, weight_decay: float) -> None:
        """Values for the step to come."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr
            if group["apply_weight_decay"]:
                group["weight_decay"] = weight_decay

    def backward(self, loss: Tensor, **kwargs) -> None:
        """Add the gradient of ``loss``."""
        (loss if self.scaler is None else self.scaler.scale(loss)).backward(**kwargs)
        self._inner_count += 1

    def clip_gradients(self) -> Tensor:
        """Clip each parameter's gradient on its own; the norm of all gradients before clipping, a scalar tensor."""
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizer)
        grads = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
        norms = torch.stack(torch._foreach_norm(grads))
        if self.clip_norm is not None:
            factors = (self.clip_norm / (norms + 1e-6)).clamp(max=1.0)
            torch._foreach_mul_(grads, list(factors.unbind()))
        return norms.norm()

    def step(self, left_out: Tensor | None = None, **kwargs) -> None:
        """Update the parameters.

        Args:
            left_out: float32 [], on the parameters' device. If it is 1 they stay as they are; ``taken`` or
                ``skip`` has to end the step. A fused optimiser looks at it on the device, before another one the
                host waits for it. None: with float16 a step whose gradients overflow is left out.
        """
        if left_out is None and self.scaler is not None:
            self.scaler.step(self.optimizer, **kwargs)
            self.scaler.update()
        elif getattr(self.optimizer, "_step_supports_amp_scaling", False):  # torch's sign of a fused optimiser
            self.optimizer.found_inf = left_out
            self.optimizer.step(**kwargs)
            del self.optimizer.found_inf
        elif left_out is None or not left_out.item():
            self.optimizer.step(**kwargs)

    def taken(self) -> None:
        """End a step that was taken: float16's loss scale grows now and then."""
        if self.scaler is not None:
            self.scaler.update()

    def skip(self) -> bool:
        """Leave this step out; True when float16's loss scale explains it and has been lowered."""
        return self.scaler is not None and lower_loss_scale(self.scaler)

    def state_dict(self) -> dict:
        """The optimiser's, and the loss scaler's."""
        state = {**super().state_dict(), "number_format": self.format.name}
        if self.scaler is not None:
            state["loss_scaler"] = self.scaler.state_dict()
        return state

    def load_state_dict(self, state_dict: dict) -> None:
        """Inverse of ``state_dict``."""
        state_dict = dict(state_dict)
        scaler_state, name = state_dict.pop("loss_scaler", None), state_dict.pop("number_format", AUTO)
        if self._open and name != AUTO:
            self._take(NumberFormat(name, "as the run began; optim_wrapper.dtype changes it"))
        if self.scaler is not None and scaler_state:
            self.scaler.load_state_dict(scaler_state)
        super().load_state_dict(state_dict)


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class PretrainOptimWrapperConstructor:
    """Builds the optimiser over DINO's two parameter groups, and ``PretrainOptimWrapper`` around it.

    ``paramwise_cfg`` must be None: the groups are part of the method.
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None) -> None:
        if paramwise_cfg is not None:
            raise ValueError("optim_wrapper.paramwise_cfg is not supported in pre-training: the groups are DINO's")
        self.optim_wrapper_cfg = optim_wrapper_cfg

    def __call__(self, model: nn.Module) -> PretrainOptimWrapper:
        module = model.module if is_model_wrapper(model) else model
        assert isinstance(module, nn.Module)
        cfg = dict(self.optim_wrapper_cfg)
        optimizer_cfg = dict(cfg.pop("optimizer"))
        optimizer_cfg.setdefault("lr", 0.0)
        optimizer = OPTIMIZERS.build({**optimizer_cfg, "params": parameter_groups(module)})
        cfg.pop("constructor", None)
        cfg.setdefault("type", "pretrain.PretrainOptimWrapper")
        return OPTIM_WRAPPERS.build(cfg, default_args={"optimizer": optimizer})
