"""Steps whose loss or gradient is not finite: left out, written down, and, after many in a row, the end of a run."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mst_transfer.files.atomic_files import write_text_atomically

DEFAULT_LIMIT = 10
IN_A_ROW = "nonfinite_in_a_row"  # entries of the message hub, and so of checkpoints
TOTAL = "nonfinite_steps"
LEFT_OUT = "left_out_steps"  # what logs call their number so far, those of a loss scale that was too high among them


def finite(values: Mapping[str, Any]) -> dict[str, float]:
    """What logs may average: one number among them that is not finite would spoil the mean of many steps."""
    numbers = {name: value.item() if hasattr(value, "item") else value for name, value in values.items()}
    return {name: number for name, number in numbers.items() if math.isfinite(number)}


def lower_loss_scale(scaler: Any, new_scale: float | None = None) -> bool:
    """Ends a step of float16 that is left out; True when its loss scale was too high, and has been lowered.

    The scaler has unscaled the gradients. ``new_scale``: what a config sets after each step; None: torch's own rule.
    """
    before = scaler.get_scale()
    scaler.update(new_scale)
    return new_scale is None and before > 1 and scaler.get_scale() < before


class NonfiniteSteps:
    """Keeps count in a runner's message hub; the same in every process, since what it is told is.

    So many steps in a row as ``limit`` says, at least 1, end the run.
    """

    def __init__(self, runner: Any, limit: int = DEFAULT_LIMIT) -> None:
        if limit < 1:
            raise ValueError(f"max_nonfinite_steps = {limit} must be at least 1")
        self.runner, self.limit = runner, limit

    @property
    def in_a_row(self) -> int:
        """Steps left out since the last that was taken."""
        return int(self.runner.message_hub.runtime_info.get(IN_A_ROW, 0))

    def taken(self) -> None:
        """A step was as it should be."""
        if self.in_a_row:
            self.runner.message_hub.update_info(IN_A_ROW, 0)

    def count(self) -> None:
        """Logs that one more step was left out, for whatever reason."""
        hub = self.runner.message_hub
        hub.update_info(LEFT_OUT, int(hub.runtime_info.get(LEFT_OUT, 0)) + 1)
        hub.update_scalar(f"train/{LEFT_OUT}", hub.runtime_info[LEFT_OUT])

    def left_out(self, step: int, values: Mapping[str, Any], samples: Sequence[Any], advice: str) -> None:
        """A step, counted from 0, was left out for a reason that does not go away by itself.

        Losses and the like by name, and this process's samples, in any form that JSON has, go to a file; ``advice`` to
        the message that ends the run.

        Raises:
            FloatingPointError: ``limit`` steps in a row. Names the newest checkpoint: weights have not changed since
                the last step that was taken, so it is a good one.
        """
        from mmengine.dist import get_rank, is_main_process

        hub, rank = self.runner.message_hub, get_rank()
        hub.update_info(IN_A_ROW, self.in_a_row + 1)
        hub.update_info(TOTAL, int(hub.runtime_info.get(TOTAL, 0)) + 1)
        logged = {name: str(value) for name, value in values.items()}
        record = dict(step=step, rank=rank, seed=self.runner.seed, logged=logged, samples=list(samples))
        path = Path(self.runner.work_dir) / f"nonfinite_step_{step}_rank_{rank}.json"
        write_text_atomically(path, json.dumps(record, indent=1))
        if is_main_process():
            self.runner.logger.warning(
                f"step {step} left out: its loss or its gradient is not finite ({self.in_a_row} of at most "
                f"{self.limit} in a row); see {path}"
            )
        if self.in_a_row >= self.limit:
            last = hub.runtime_info.get("last_ckpt")
            raise FloatingPointError(
                f"{self.in_a_row} steps in a row, up to step {step}, had a loss or gradient that is not finite; "
                f"losses and samples are in {path}; last good checkpoint: {last or 'none was written'}. {advice}"
            )
