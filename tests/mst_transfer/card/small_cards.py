"""Short recipes; plans and cards of two tiny checkpoints and random weights on small sample data."""

import json

from mst_transfer.card.plan import read_plan
from mst_transfer.cli.evaluate import main

SEG = """
_base_ = "mst_transfer::seg_configs/mst_setr_pup_sample.py"
train_cfg = dict(max_iters=3, val_interval=3)
default_hooks = dict(checkpoint=dict(interval=3), logger=dict(interval=1))
"""
DET = """
_base_ = "mst_transfer::det_configs/mst_maskrcnn_sample.py"
train_cfg = dict(max_epochs=1, val_interval=1)
default_hooks = dict(checkpoint=dict(interval=1), logger=dict(interval=1))
"""


def plan_of(world, out, *words):
    """The plan of a command, and nothing run."""
    checkpoints = [str(world / "a.safetensors"), str(world / "b.safetensors")]
    assert main([*checkpoints, "random", "--on", "sample", "--out", str(out), "--print-jobs", *words]) == 0
    return read_plan(out)


def card_of(world, out, *words):
    """``card.json`` of the same command."""
    checkpoints = [str(world / "a.safetensors"), str(world / "b.safetensors")]
    status = main([*checkpoints, "random", "--on", "sample", "--out", str(out), *words])
    return status, json.loads((out / "card.json").read_text())


def content_of(out):
    """``card.json`` without what another run of the same has otherwise."""
    card = json.loads((out / "card.json").read_text())
    del card["command"]
    assert all(job.pop("minutes") and job.pop("command") for job in card["jobs"])
    return card
