"""Schedulers that a run is too short for: a warm-up that never ends, a decay that never comes.

A recipe's schedulers are for its own data. On a smaller set an epoch has fewer iterations, and a warm-up that is
counted in iterations may be longer than the run. The recipe is left as it is; its user is told, with the option.
"""

from collections.abc import Mapping
from typing import Any

from mst_transfer.configs.datasets import items

_WARM_UPS = ("LinearLR", "ConstantLR")
_SHARE = 10  # a tenth of the run is advised for a warm-up that does not fit
_SHORTEST = 2  # iterations; mmengine's schedulers of one begin, and stay where they began


def unfinished_schedules(
    cfg: Mapping[str, Any], num_iters: int, num_epochs: int | None = None, stretch: int = 1
) -> list[str]:
    """One sentence, with the ``--cfg-options`` that mends it, for each scheduler that reaches beyond the run.

    The run has ``num_iters`` iterations, and epochs if its loop counts them. The config's counts of iterations are
    multiplied by ``stretch`` already: see ``apply_batch_plan``.
    """
    sentences = []
    for path, scheduler in items(cfg, "param_scheduler"):
        if scheduler.get("by_epoch", True):
            sentences += _beyond(path, scheduler, num_epochs, "epoch", 1) if num_epochs else []
        else:
            sentences += _beyond(path, scheduler, num_iters, "iteration", stretch)
    return sentences


def _beyond(path: str, scheduler: Mapping[str, Any], length: int, unit: str, stretch: int) -> list[str]:
    kind, begin = str(scheduler.get("type")), scheduler.get("begin", 0)
    warms_up = kind in _WARM_UPS and not begin
    milestones = list(scheduler.get("milestones") or ())
    name = "T_max" if scheduler.get("T_max") else "end"
    if milestones:
        if max(milestones) < length:
            return []
        reach = max(scheduler.get("end") or 0, max(milestones) + 1)
        name, found = "milestones", str(milestones)
        fitting = str([max(at * length // reach // stretch, 1) for at in milestones]).replace(" ", "")
    else:
        end = scheduler.get(name)
        if not end or (begin + end if name == "T_max" else end) <= length:
            return []
        found = str(end)
        part = length // _SHARE if warms_up else length - (begin if name == "T_max" else 0)
        fitting = str(max(part // stretch, _SHORTEST if warms_up else 1))
    effect = "the full rate is never reached" if warms_up else "it does not come to its end"
    counted = f" ({stretch} {unit}s count as one there, as they make a step)" if stretch > 1 else ""
    return [
        f"{path} ({kind}) goes beyond the run: {name} {found}, and the run has {length} {unit}s, so {effect}. "
        f"Next step: --cfg-options {path}.{name}={fitting}{counted}"
    ]
