"""The batch that a step sees: images a process × processes × accumulated batches, beside the recipe's.

A recipe's learning rate is for a batch, ``auto_scale_lr.base_batch_size``. With fewer devices there are two ways to
stay close to it: add up the gradients of several batches before each step (``--accumulate``), or scale the rate
(``--auto-scale-lr``). Accumulation divides each loss by the number of batches, so that the gradient is that of one
large batch where the loss is a mean over equally many terms. It is not where batch norm is (its statistics are of the
small batch), nor exactly for losses divided by the number of positives or of labelled pixels.

mmengine counts every accumulated batch as an iteration. Whatever a config counts in iterations is therefore multiplied
by the number of accumulated batches, so that steps, and rates at them, are the recipe's (ramps within one step).
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from mst_transfer.configs.datasets import items

AUTO = "auto"
WANTED = "_accumulate"  # entry of a config between its reading and the start of the run, where processes are counted
# Entries of a scheduler that count iterations, for the kinds whose course is a function of them.
SCHEDULER_COUNTS = ("begin", "end", "milestones", "step_size", "T_max", "total_steps", "periods")
STRETCHABLE = ("Constant", "Linear", "Poly", "MultiStep", "Step", "CosineAnnealing", "CosineRestart", "OneCycle")
LOOP_COUNTS = ("max_iters", "val_begin", "val_interval")


@dataclass(frozen=True)
class BatchPlan:
    """The batch of a run."""

    per_process: int  # images that a process takes at a time
    processes: int
    accumulation: int  # batches whose gradients make one step
    recipe: int | None  # batch that the config's learning rate is for; None if the config does not say
    recipe_lr: float | None  # the config's learning rate
    scale_lr: bool  # whether the rate is scaled by the ratio of the batches
    stretch: int = 1  # what the config's counts of iterations are multiplied by: 1 if it accumulates itself

    @property
    def effective(self) -> int:
        """Images that a step sees."""
        return self.per_process * self.processes * self.accumulation

    @property
    def lr(self) -> float | None:
        """Learning rate of the run."""
        if not self.scale_lr or self.recipe_lr is None or self.recipe is None:
            return self.recipe_lr
        return self.recipe_lr * self.effective / self.recipe

    def sentence(self) -> str:
        """The plan, what differs from the recipe, and the ways to mend it."""
        product = f"{self.per_process} a process × {self.processes} processes × {self.accumulation} accumulated"
        text = f"batch: {product} = {self.effective}"
        if self.lr is not None:
            text += f"; learning rate {self.lr:g}"
        if self.recipe is None:
            return f"{text}; the config names no batch that it is for (auto_scale_lr.base_batch_size)"
        if self.effective == self.recipe:
            return f"{text}; both are the recipe's"
        text += f"; the recipe's batch is {self.recipe}"
        if self.scale_lr:
            return f"{text}, its rate {self.recipe_lr:g}"
        count, rest = divmod(self.recipe, self.per_process * self.processes)
        ways = [f"--accumulate {count} makes the batch equal"] if count > 1 and not rest else []
        return f"{text}: {', '.join([*ways, '--auto-scale-lr scales the rate'])}"

    def as_dict(self) -> dict[str, Any]:
        """For ``results.json``."""
        return asdict(self) | {"effective": self.effective, "lr": self.lr}


def want_accumulation(cfg: Any, accumulate: str | int) -> None:
    """Notes in a config that its run shall accumulate so many batches, or ``auto``: what makes the recipe's batch.

    ``apply_batch_plan`` follows once processes are counted.

    Raises:
        ValueError: The config already accumulates, or ``auto`` has no batch to aim at.
    """
    given = (cfg.get("optim_wrapper") or {}).get("accumulative_counts", 1)
    if given != 1:
        raise ValueError(
            f"--accumulate {accumulate}: the config itself accumulates (optim_wrapper.accumulative_counts={given}) and "
            "counts its iterations so. Next step: leave --accumulate out, or set that entry to 1 and the counts with it"
        )
    if accumulate == AUTO and _recipe(cfg) is None:
        raise ValueError(
            "--accumulate auto: the config has no auto_scale_lr.base_batch_size. Next step: add "
            "auto_scale_lr = dict(base_batch_size=N), N being the batch of its learning rate, or --accumulate N"
        )
    cfg[WANTED] = accumulate


def plan_batch(cfg: Any, processes: int) -> BatchPlan:
    """The batch of a config's run on that many processes.

    Raises:
        ValueError: ``--accumulate auto``, and the recipe's batch is not a multiple of what the processes take.
    """
    wanted = cfg.get(WANTED)
    per_process = cfg.train_dataloader.get("batch_size", 1)
    recipe = _recipe(cfg)
    accumulation = cfg.optim_wrapper.get("accumulative_counts", 1) if wanted is None else wanted
    if accumulation == AUTO:
        assert recipe is not None  # want_accumulation refuses
        accumulation, rest = divmod(recipe, per_process * processes)
        if accumulation == 0:
            accumulation = 1
        elif rest:
            fitting = [size for size in range(1, recipe + 1) if recipe % (size * processes) == 0]
            way = f"the number of processes to a divisor of {recipe}"
            raise ValueError(
                f"--accumulate auto: the recipe's batch of {recipe} is not a multiple of {per_process} a process × "
                f"{processes} processes. Next step: set "
                + (f"train_dataloader.batch_size to one of {fitting}" if fitting else way)
            )
    return BatchPlan(
        per_process=per_process,
        processes=processes,
        accumulation=int(accumulation),
        recipe=recipe,
        recipe_lr=(cfg.optim_wrapper.get("optimizer") or {}).get("lr"),
        scale_lr=bool((cfg.get("auto_scale_lr") or {}).get("enable")),
        stretch=1 if wanted is None else int(accumulation),
    )


def apply_batch_plan(cfg: Any, plan: BatchPlan) -> list[str]:
    """Changes ``cfg`` in place so that the run follows the plan.

    Returns:
        Sentences for the log: the plan, then what was changed.

    Raises:
        ValueError: A schedule counts iterations in a way that cannot be stretched.
    """
    sentences = [plan.sentence()]
    if plan.scale_lr and plan.recipe_lr is not None and plan.recipe is not None:
        # mmengine would scale by the batch of one iteration, and log base_lr as it was
        cfg.optim_wrapper.optimizer.lr = plan.lr
        cfg.auto_scale_lr.update(enable=False, base_batch_size=plan.effective)
    cfg.pop(WANTED, None)
    if plan.stretch == 1:
        return sentences
    cfg.optim_wrapper.accumulative_counts = plan.stretch
    changes = list(_stretch(cfg, plan.stretch))
    if changes:
        sentences.append(f"{plan.stretch} iterations make a step, so these count iterations: {', '.join(changes)}")
    if cfg.get("custom_hooks"):
        sentences.append("custom_hooks are left as they are: what they count in iterations comes sooner in steps")
    return sentences


def _recipe(cfg: Any) -> int | None:
    return (cfg.get("auto_scale_lr") or {}).get("base_batch_size")


def _stretch(cfg: Any, count: int) -> Iterator[str]:
    """Multiplies what the config counts in iterations; yields ``path old → new``."""
    loop = cfg.train_cfg
    if loop.get("type") == "IterBasedTrainLoop" or loop.get("by_epoch") is False:
        yield from _multiply(loop, LOOP_COUNTS, "train_cfg", count)
        if loop.get("dynamic_intervals"):
            loop.dynamic_intervals = [(at * count, every * count) for at, every in loop.dynamic_intervals]
            yield "train_cfg.dynamic_intervals"
    for path, scheduler in items(cfg, "param_scheduler"):
        if scheduler.get("by_epoch", True):
            continue
        kind = str(scheduler.get("type"))
        if not any(kind in (f"{name}LR", f"{name}Momentum", f"{name}ParamScheduler") for name in STRETCHABLE):
            raise ValueError(
                f"--accumulate: {path}.type={kind!r} with by_epoch=False changes by a factor each iteration, or is not "
                f"known here; known are {', '.join(STRETCHABLE)} (LR). Next step: use one of these, or by_epoch=True"
            )
        yield from _multiply(scheduler, SCHEDULER_COUNTS, path, count)
    checkpoint = (cfg.get("default_hooks") or {}).get("checkpoint") or {}
    if checkpoint.get("by_epoch", True) is False:
        yield from _multiply(checkpoint, ("interval", "save_begin"), "default_hooks.checkpoint", count)


def _multiply(node: Any, names: tuple[str, ...], path: str, count: int) -> Iterator[str]:
    for name in names:
        old = node.get(name)
        if isinstance(old, list | tuple):
            node[name] = [value * count for value in old]
        elif isinstance(old, int) and not isinstance(old, bool) and old > 0:
            node[name] = old * count
        else:
            continue
        yield f"{path}.{name} {old} → {node[name]}"


def check_batch_norm(cfg: Any, plan: BatchPlan) -> None:
    """Refuses a single image a step where a head pools each image to one value a channel, which BatchNorm can't take.

    Raises:
        ValueError: names the head, and how to get more images into a step's statistics.
    """
    if plan.per_process * plan.processes > 1:
        return
    for name in ("decode_head", "auxiliary_head"):
        for _, head in items(cfg.get("model") or {}, name):
            kind, norm = str(head.get("type")).rpartition(".")[2], (head.get("norm_cfg") or {}).get("type", "")
            if kind in ("UPerHead", "PSPHead") and 1 in head.get("pool_scales", (1, 2, 3, 6)) and norm.endswith("BN"):
                raise ValueError(
                    f"model.{name} ({kind}) pools each image to one value a channel, and BatchNorm needs more, "
                    "but train_dataloader.batch_size=1 in one process gives one image. Next step: --cfg-options "
                    "train_dataloader.batch_size=2, with --accumulate auto for the recipe's batch; or more processes"
                )
