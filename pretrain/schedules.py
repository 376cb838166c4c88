"""Learning rate, weight decay, teacher momentum and teacher temperature as functions of the step (DINO).

Nothing here has a state: the value at step t needs t alone, so resuming cannot get it wrong.
"""

import math
from dataclasses import dataclass


def cosine_schedule(step: int, total_steps: int, base: float, final: float, warmup_steps: int = 0) -> float:
    """Linear from 0 to ``base`` over the first ``warmup_steps``, then half a cosine from ``base`` to ``final``.

    The value at the last warm-up step is ``base``, but 0 if that is the only one; ``final`` is approached at the last
    of ``total_steps``, not reached.
    """
    if step < warmup_steps:
        return 0.0 if warmup_steps == 1 else base * step / (warmup_steps - 1)
    progress = (step - warmup_steps) / (total_steps - warmup_steps)
    return final + 0.5 * (base - final) * (1 + math.cos(math.pi * progress))


def teacher_temp_at(epoch: int, warmup_temp: float, temp: float, warmup_epochs: int) -> float:
    """Linear from ``warmup_temp`` in epoch 0 to ``temp`` in epoch ``warmup_epochs - 1``, constant from then on."""
    if epoch >= warmup_epochs:
        return temp
    if warmup_epochs == 1:
        return warmup_temp
    return warmup_temp + (temp - warmup_temp) * epoch / (warmup_epochs - 1)


@dataclass(frozen=True)
class StepValues:
    """What the schedules say for one step."""

    lr: float
    weight_decay: float
    teacher_momentum: float
    teacher_temp: float
    train_last_layer: bool
    train_backbone: bool


@dataclass(frozen=True)
class Schedule:
    """All schedules of a run.

    With an effective batch B that is not ``momentum_batch`` the momentum of every step is raised to the power
    B / ``momentum_batch``, so that the teacher averages over as many *images* (Busbridge et al., "How to Scale Your
    EMA", NeurIPS 2023). ``head_only_epochs`` are for going on from released weights: the backbone gets no update during
    the first epochs, whole or not, while head, decoder and [MASK] find their place.
    """

    base_lr: float = 5e-4  # for an effective batch of ``base_batch``; scaled linearly with the effective batch
    base_batch: int = 256  # DINO's
    min_lr: float = 1e-6  # at the end of the run; not scaled
    warmup_epochs: int = 10  # linear warm-up of the learning rate from 0
    weight_decay: float = 0.04  # cosine from here to the end, no warm-up
    weight_decay_end: float = 0.4
    teacher_momentum: float = 0.996  # at the start; rises to 1 by a cosine
    warmup_teacher_temp: float = 0.04  # see ``teacher_temp_at``
    teacher_temp: float = 0.07
    warmup_teacher_temp_epochs: int = 30
    freeze_last_layer_epochs: int = 1  # the head's last layer gets no update during the first epochs
    momentum_batch: int | None = None  # that ``teacher_momentum`` is quoted for; None: not scaled, as DINO
    head_only_epochs: float = 0

    def __post_init__(self) -> None:
        for name in ("base_lr", "base_batch", "warmup_teacher_temp", "teacher_temp"):
            if getattr(self, name) <= 0:
                raise ValueError(f"schedule.{name} = {getattr(self, name)} must be positive")
        whole = ("warmup_epochs", "warmup_teacher_temp_epochs", "freeze_last_layer_epochs")
        for name in ("min_lr", "head_only_epochs", *whole):
            if getattr(self, name) < 0:
                raise ValueError(f"schedule.{name} = {getattr(self, name)} must not be negative")
        for name in whole:
            if getattr(self, name) != int(getattr(self, name)):
                raise ValueError(f"schedule.{name} = {getattr(self, name)} must be a whole number of epochs")
        if self.momentum_batch is not None and self.momentum_batch < 1:
            raise ValueError(f"schedule.momentum_batch = {self.momentum_batch} must be at least 1, or None")
        if not 0 <= self.teacher_momentum <= 1:
            raise ValueError(f"schedule.teacher_momentum = {self.teacher_momentum} must lie in [0, 1]")

    def check_length(self, max_epochs: int) -> None:
        """Refuse a warm-up that fills the run."""
        if self.warmup_epochs >= max_epochs:
            raise ValueError(
                f"schedule.warmup_epochs = {self.warmup_epochs} must be less than max_epochs = {max_epochs}: "
                "shorten the warm-up (train_cfg.schedule.warmup_epochs) or train longer (train_cfg.max_epochs)"
            )
        if self.head_only_epochs >= max_epochs:
            raise ValueError(
                f"schedule.head_only_epochs = {self.head_only_epochs:g} must be less than max_epochs = {max_epochs}: "
                "the backbone would never be trained"
            )

    def peak_lr(self, effective_batch: int) -> float:
        """Learning rate after the warm-up."""
        return self.base_lr * effective_batch / self.base_batch

    def scale_momentum(self, momentum: float, effective_batch: int) -> float:
        """``momentum`` for the effective batch at hand."""
        return momentum if self.momentum_batch is None else momentum ** (effective_batch / self.momentum_batch)

    def at(self, step: int, steps_per_epoch: int, max_epochs: int, effective_batch: int) -> StepValues:
        """Values for optimiser step ``step``, counted from 0 over the whole run."""
        total = steps_per_epoch * max_epochs
        epoch = step // steps_per_epoch
        return StepValues(
            lr=cosine_schedule(
                step, total, self.peak_lr(effective_batch), self.min_lr, self.warmup_epochs * steps_per_epoch
            ),
            weight_decay=cosine_schedule(step, total, self.weight_decay, self.weight_decay_end),
            teacher_momentum=self.scale_momentum(
                cosine_schedule(step, total, self.teacher_momentum, 1.0), effective_batch
            ),
            teacher_temp=teacher_temp_at(
                epoch, self.warmup_teacher_temp, self.teacher_temp, self.warmup_teacher_temp_epochs
            ),
            train_last_layer=epoch >= self.freeze_last_layer_epochs,
            train_backbone=step >= self.head_only_epochs * steps_per_epoch,
        )
