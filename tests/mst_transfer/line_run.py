"""The smallest run of mmengine's Runner: a line is fitted to eight numbers, four epochs of two steps."""

from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import Dataset

from mst_transfer.runs.checkpoint_hook import SafeCheckpointHook


class Numbers(Dataset):
    """x and 2x."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> dict:
        return dict(x=torch.tensor([float(index)]), y=torch.tensor([2.0 * index]))


class Line(BaseModel):
    """One weight, and ballast that makes its checkpoints as large as is asked for; ``width`` weights without use."""

    def __init__(self, ballast: int = 0, width: int = 0) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)
        self.unused = nn.Parameter(torch.zeros(width))
        self.register_buffer("ballast", torch.zeros(ballast // 4))

    def forward(self, x: torch.Tensor, y: torch.Tensor, mode: str = "loss") -> Any:
        error = self.layer(x) + 0 * self.unused.sum() - y
        return dict(loss=error.square().mean()) if mode == "loss" else [dict(error=one) for one in error.abs()]


class Script(BaseMetric):
    """Metrics that take given values, one a validation: of ``score``, or of several by name."""

    def __init__(self, values: list[float] | list[dict[str, float]]) -> None:
        super().__init__()
        self.values = iter(values)

    def process(self, data_batch: dict, data_samples: list) -> None:
        self.results.append(0)

    def compute_metrics(self, results: list) -> dict:
        value = next(self.values)
        return value if isinstance(value, dict) else dict(score=value)


def build(
    work_dir: Path, *, epochs: int = 4, scores: list | None = None, ballast: int = 0, width: int = 0, **hook: Any
) -> Runner:
    """A runner whose checkpoint hook is ours."""
    loader = dict(dataset=Numbers(), batch_size=4, num_workers=0, collate_fn=dict(type="default_collate"))
    loader["sampler"] = dict(type="DefaultSampler", shuffle=False)
    validation = {}
    if scores is not None:
        validation = dict(val_dataloader=dict(loader), val_cfg=dict(), val_evaluator=[Script(scores)])
        hook = dict(save_best="score", rule="greater") | hook
    torch.manual_seed(0)
    resume = hook.pop("resume", None)
    cfg = hook.pop("cfg", None) or dict(model=dict(type="Line"), train_dataloader=dict(dataset=dict(type="Numbers")))
    name = "_".join((work_dir.parent.name, work_dir.name, str(id(hook))))
    runner = Runner(
        model=Line(ballast, width),
        work_dir=str(work_dir),
        train_dataloader=dict(loader),
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=dict(optimizer=dict(type="AdamW", lr=0.1)),
        default_hooks=dict(checkpoint=dict(type=SafeCheckpointHook, interval=1, **hook)),
        randomness=dict(seed=0),
        resume=resume is not None,
        load_from=resume,
        experiment_name=name,
        log_level="WARNING",
        **validation,
    )
    runner.cfg = Config(cfg)
    return runner
