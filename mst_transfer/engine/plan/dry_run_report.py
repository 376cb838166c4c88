"""Shows what a dry run measured, as a table; and what to do when memory was too small."""

from dataclasses import dataclass, field
from statistics import median
from typing import Any

_GIB = 2**30


@dataclass
class DryRunReport:
    """Measurements of a dry run; ``str()`` is the report."""

    config: str
    device: str  # its name, or CPU
    world_size: int
    num_workers: int  # loader processes
    accumulation: int  # steps whose gradients make one of the optimizer
    num_steps_of_run: int
    input_shapes: list[tuple[int, ...]]  # ``[B, C, H, W]`` of each step, as the model sees it
    step_seconds: list[float]  # of each step, without loading
    losses: list[dict[str, float]]  # name → value of each step
    load_seconds: float  # one process's time to load a batch
    train_memory: int  # bytes at the peak of training
    val_seconds: float | None = None  # of one validation batch; None without validation
    val_memory: int = 0
    num_validations: int = 0  # of the whole run
    num_val_batches: int = 0  # of each
    facts: list[str] = field(default_factory=list)  # further sentences

    @property
    def wait(self) -> float:
        """Seconds a step that a long run waits for data: what its workers cannot load meanwhile."""
        if not self.num_workers:
            return self.load_seconds
        return max(self.load_seconds / self.num_workers - median(self.step_seconds), 0.0)

    def rows(self) -> list[tuple[str, str]]:
        """Name and value of each line of the table."""
        step, memory = median(self.step_seconds), "memory growth (CPU)" if self.device == "CPU" else "GPU memory"
        shape = max(self.input_shapes, key=lambda item: item[-1] * item[-2] if len(item) > 1 else 0, default=())
        shown = ", ".join(f"{seconds:.3g}" for seconds in self.step_seconds)
        rows = [
            ("device", f"{self.device}, {self.world_size} process{'es' if self.world_size > 1 else ''}"),
            ("largest input", " × ".join(map(str, shape)) or "unknown"),
            ("step", f"{step:.3g} s, median of {shown}"),
            ("loading a batch", f"{self.load_seconds:.3g} s in one process, {self.num_workers} workers"),
            ("waiting for data", f"{self.wait:.3g} s a step ({100 * self.wait / (self.wait + step):.0f} %), estimated"),
            ("peak, training", f"{self.train_memory / _GIB:.2f} GiB {memory}"),
        ]
        if self.accumulation > 1:
            rows.append(("accumulation", f"{self.accumulation} steps make one of the optimizer"))
        total = self.num_steps_of_run * (step + self.wait)
        if self.val_seconds is not None:
            validation = self.num_validations * self.num_val_batches * self.val_seconds
            total += validation
            count = f"{self.num_validations} × {self.num_val_batches}"
            rows += [
                ("validation batch", f"{self.val_seconds:.3g} s, the largest image"),
                ("peak, validation", f"{self.val_memory / _GIB:.2f} GiB {memory}"),
                ("validations", f"{count} batches: at most {duration(validation)}"),
            ]
        whole = f"{self.num_steps_of_run} steps: about {duration(total)} if all were of this size"
        losses = " → ".join(f"{values.get('loss', sum(values.values())):.4g}" for values in self.losses)
        last = [f"{name} {value:.3g}" for name, value in self.losses[-1].items() if name != "loss"]
        losses += f"; last: {', '.join(last)}" if last else ""
        return [*rows, ("whole run", whole), ("loss", losses)]

    def __str__(self) -> str:
        """The report."""
        rows = self.rows()
        width = max(len(name) for name, _ in rows)
        lines = [*(f"{name:{width}}  {value}" for name, value in rows), *self.facts]
        return "\n  ".join([f"dry run of {self.config}, nothing was written", *lines])


def duration(seconds: float) -> str:
    """Seconds in words: ``40 s``, ``12 min``, ``3.4 h``, ``2.1 days``."""
    for limit, size, unit in ((90, 1, "s"), (90 * 60, 60, "min"), (48 * 3600, 3600, "h")):
        if seconds < limit:
            return f"{seconds / size:.{1 if unit == 'h' else 0}f} {unit}"
    return f"{seconds / 86400:.1f} days"


def out_of_memory_advice(cfg: Any, error: BaseException) -> str | None:
    """What to change in a run's config when memory was too small; None for any other error."""
    text = str(error)
    signs = ("out of memory", "can't allocate memory", "not enough memory")
    if not (isinstance(error, MemoryError) or any(sign in text for sign in signs)):
        return None
    batch_size = cfg.train_dataloader.get("batch_size", 1)
    ways = []
    if batch_size > 1:
        ways.append(f"train_dataloader.batch_size={batch_size // 2} with --accumulate auto")
    if (cfg.get("optim_wrapper") or {}).get("type") != "AmpOptimWrapper":
        ways.append("--amp (half the memory of activations, on a GPU)")
    if not (cfg.model.get("backbone") or {}).get("with_cp"):
        ways.append("model.backbone.with_cp=True (recomputes activations: less memory, about a third more time)")
    ways.append("a smaller crop or scale in the pipelines (crop_size, scale), and data_preprocessor.size with it")
    first = (text or type(error).__name__).splitlines()[0][:200]
    return f"out of memory at batch size {batch_size} a process: {first}\nNext step, one of:\n- " + "\n- ".join(ways)
