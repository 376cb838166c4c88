"""Times of training steps, and what a dry run shows beside them."""

from __future__ import annotations

import time
from typing import Any


def now() -> float:
    """Seconds, with the work of the device done."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


class StepClock:
    """Times of steps and of waiting for data, input shapes and losses, taken by a hook."""

    def __init__(self) -> None:
        self.compute: list[float] = []
        self.waits: list[float] = []
        self.shapes: list[tuple[int, ...]] = []
        self.losses: list[dict[str, float]] = []
        self._started = self._ended = 0.0

    def before(self) -> None:
        self._started = now()
        if self._ended:
            self.waits.append(self._started - self._ended)

    def after(self, outputs: dict[str, Any]) -> None:
        self._ended = now()
        self.compute.append(self._ended - self._started)
        self.losses.append({name: _number(value) for name, value in outputs.items() if "loss" in name})

    def look(self, batch: Any) -> None:
        """Notes the shape of the padded inputs that the model sees, ``[B, C, H, W]``."""
        inputs = batch["inputs"] if isinstance(batch, dict) else batch
        self.shapes.append(tuple(getattr(inputs, "shape", ())))

    def hook(self) -> Any:
        """The hook of mmengine that calls this clock."""
        from mmengine.hooks import Hook

        clock = self

        class StepClockHook(Hook):
            """Calls the clock around each step."""

            def before_train(self, runner: Any) -> None:
                model = getattr(runner.model, "module", runner.model)
                self._handle = model.data_preprocessor.register_forward_hook(
                    lambda _module, _args, out: clock.look(out)
                )

            def after_train(self, runner: Any) -> None:
                self._handle.remove()

            def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
                clock.before()

            def after_train_iter(
                self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
            ) -> None:
                clock.after(outputs)

        return StepClockHook()


def _number(value: Any) -> float:
    return float(value.detach() if hasattr(value, "detach") else value)
