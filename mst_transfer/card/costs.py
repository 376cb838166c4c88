"""How long a card's jobs will take and how much disk they need, before they start."""

from __future__ import annotations

import math
import time

import numpy as np
import torch

from mst_transfer.card.checkpoints import Checkpoint
from mst_transfer.card.plan import HEAD, Job, Plan
from mst_transfer.card.task_data import TaskData
from mst_transfer.probes.label_subset import label_subset

_START = 12.0  # seconds: imports, reading, checks
_TRAINING = 4.0  # a step costs as many passes of the backbone, heads included
_SOLVER = 150  # products with the features that a logistic regression takes


def measured_flops() -> float:
    """Floating-point operations a second of a float32 product on this device, of which half is counted on."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    matrix = torch.randn(2048, 2048, device=device)
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        float((matrix @ matrix)[0, 0])
        seconds.append(time.perf_counter() - start)
    return 2 * 2048**3 / min(seconds) / 2


def num_tokens(plan: Plan, checkpoint: Checkpoint, size: tuple[int, int]) -> int:
    """Patch tokens of an image of ``size`` (width, height) at the dense probes' resolution."""
    scale = min(1.0, plan.options.max_side / max(size))
    return math.prod(
        max(1, round(side * scale / plan.multiple)) * plan.multiple // checkpoint.patch_size for side in size
    )


def seconds_of(plan: Plan, job: Job, data: TaskData, size: tuple[int, int], flops: float) -> float:
    """Roughly how long a job takes whose images are of ``size``, at :func:`measured_flops`."""
    checkpoint = plan.checkpoint(job.checkpoint)
    tokens = num_tokens(plan, checkpoint, size) if data.cfg else 200
    one_pass = 2.0 * checkpoint.num_params * tokens
    if job.kind == HEAD:
        batch, train = data.cfg.train_dataloader.batch_size, data.cfg.train_cfg
        steps = train.get("max_iters") or train.get("max_epochs", 1) * len(data.train) / batch
        return _START + (steps * batch * _TRAINING + 2 * len(data.val)) * one_pass / flops
    work = (len(data.train) + len(data.val)) * one_pass
    for labels in job.labels if data.cfg else ():
        keys = len(label_subset(len(data.train), labels, 0)) * tokens
        products = len(data.val) * tokens + _SOLVER * len(data.classes)
        work += 2.0 * checkpoint.embed_dim * keys * products * len(job.seeds)
    return _START + work / flops


def feature_bytes(plan: Plan, job: Job, data: TaskData, size: tuple[int, int]) -> int:
    """Bytes of the patch tokens that a job keeps while it runs; 0 of one that keeps none."""
    if job.kind == HEAD or data.cfg is None:
        return 0
    checkpoint = plan.checkpoint(job.checkpoint)
    most = max(len(label_subset(len(data.train), labels, 0)) for labels in job.labels)
    images = len(data.val) + min(len(data.train), most * len(job.seeds))
    bits = 8 * np.dtype(plan.options.dtype).itemsize
    return images * num_tokens(plan, checkpoint, size) * checkpoint.embed_dim * plan.options.num_blocks * bits // 8
