"""How long a card's jobs will take and how much disk they need, before they start."""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch.utils.benchmark import Timer

from mst_transfer.card.plan import Job, Plan
from mst_transfer.card.run_jobs import unfinished
from mst_transfer.card.task_data import TaskData
from mst_transfer.files.atomic_files import free_space, readable_size
from mst_transfer.files.image_files import open_image_file
from mst_transfer.probes.labelled_images import label_subset

_START = 12.0  # seconds: imports, reading, checks
_TRAINING = 4.0  # a step costs as many passes of the backbone, heads included
_SOLVER = 150  # products with the features that a logistic regression takes


def measured_flops() -> float:
    """Floating-point operations a second of a float32 product on this device, of which half is counted on."""
    matrix = torch.randn(2048, 2048, device="cuda" if torch.cuda.is_available() else "cpu")
    timer = Timer("matrix @ matrix", globals=dict(matrix=matrix), num_threads=torch.get_num_threads())
    return 2048**3 / timer.timeit(3).mean


def planned_costs(plan: Plan, data: Mapping[str, TaskData], folder: Path, at_once: int) -> dict[str, float]:
    """Seconds that each job which is not done will roughly take.

    Raises:
        ValueError: the features of the jobs that run at once do not fit the disk.
    """
    flops = measured_flops()
    costs = {job.id: _cost(plan, job, data[job.task], flops) for job in unfinished(folder, plan)}
    needed, free = sum(sorted(size for _, size in costs.values())[-at_once:]), free_space(folder)
    if free is not None and needed > free:
        raise ValueError(
            f"the jobs keep {readable_size(needed)} of features in {folder} while they run, and {readable_size(free)} "
            "are free there. Next step: --feature-dtype float16 halves them; fewer --labels, a smaller --max-side or "
            "fewer --jobs at once take less; or name an --out on another disk"
        )
    return {name: seconds for name, (seconds, _) in costs.items()}


def _cost(plan: Plan, job: Job, data: TaskData, flops: float) -> tuple[float, int]:
    """Seconds that a job takes whose images are as large as the first, and bytes of the patch tokens that it keeps."""
    checkpoint, num_train, num_val = plan.checkpoint(job.checkpoint), len(data.train), len(data.val)
    with open_image_file(data.train[0].path) as image:
        scale = min(1.0, plan.options.max_side / max(image.size)) / plan.multiple
        sides = [max(1, round(side * scale)) * plan.multiple // checkpoint.patch_size for side in image.size]
    tokens = math.prod(sides) if data.cfg else 200
    one_pass = 2.0 * checkpoint.num_params * tokens
    if job.recipe:
        batch, train = data.cfg.train_dataloader.batch_size, data.cfg.train_cfg
        steps = train.get("max_iters") or train.get("max_epochs", 1) * num_train / batch
        return _START + (steps * batch * _TRAINING + 2 * num_val) * one_pass / flops, 0
    seconds = _START + (num_train + num_val) * one_pass / flops
    if data.cfg is None:
        return seconds, 0
    labelled = [len(label_subset(num_train, labels, 0)) for labels in job.labels]
    products = sum(labelled) * tokens * (num_val * tokens + _SOLVER * len(data.classes)) * len(job.seeds)
    images = num_val + min(num_train, max(labelled) * len(job.seeds))
    numbers = images * tokens * checkpoint.embed_dim * plan.options.num_blocks
    return seconds + 2.0 * checkpoint.embed_dim * products / flops, numbers * np.dtype(plan.options.dtype).itemsize
