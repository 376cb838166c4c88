"""``mst params``: the table is what the optimizer of a real, trained-size model has."""

import json
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper

from mst_transfer.cli.main import main
from mst_transfer.engine.plan.parameter_table import group_rows, parameter_rows

DET, SEG = "det_configs/mst_maskrcnn_sample.py", "seg_configs/mst_setr_pup_sample.py"


def test_custom_keys_of_mmengine_are_shown(root: Path):
    cfg = Config.fromfile(root / SEG)
    cfg.optim_wrapper = dict(
        type="AmpOptimWrapper",  # needs a GPU to be built
        loss_scale="dynamic",
        optimizer=dict(type="SGD", lr=0.01, weight_decay=0.001),
        paramwise_cfg=dict(custom_keys={"head": dict(lr_mult=10.0)}, norm_decay_mult=0.0),
    )
    rows = {row.name: row for row in parameter_rows(cfg)}
    assert (rows["decode_head.conv_seg.weight"].lr, rows["backbone.vit.blocks.0.mlp.fc1.weight"].lr) == (0.1, 0.01)
    assert rows["backbone.vit.norm.weight"].weight_decay == 0.0
    assert rows["backbone.vit.blocks.0.mlp.fc1.weight"].weight_decay == 0.001
    assert {row.layer for row in rows.values()} == {None}


def test_the_rows_are_those_of_a_real_optimizer(root: Path):
    """By layer: 0 (embeddings), 1-4 (blocks), 5 (all else), with and without weight decay."""
    import mmdet.models  # noqa: F401
    from mmdet.registry import MODELS
    from mmengine.registry import init_default_scope

    cfg = Config.fromfile(root / DET)
    table = group_rows(parameter_rows(cfg))
    layers = [group[0].layer for group in table]
    assert layers == sorted(layers) and len(table) == 12
    rows = {row.name: (row.layer, row.lr, row.weight_decay, row.shape) for group in table for row in group}
    cfg.model.backbone.checkpoint = None
    init_default_scope("mmdet")
    model = MODELS.build(cfg.model)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = build_optim_wrapper(model, cfg.optim_wrapper).optimizer.param_groups
    real = {names[id(p)]: (g["layer"], g["lr"], g["weight_decay"], p.shape) for g in groups for p in g["params"]}
    assert rows == real
    assert rows["backbone.vit.pos_embed"][:3] == (0, pytest.approx(1e-3 * 0.8**5), 0.0)


def test_what_is_frozen_is_said(root: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(root)
    words = ["params", SEG, "--cfg-options", "+model.backbone.frozen_stages=1"]
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    block = next(line for line in lines if line.startswith("backbone.vit.blocks.0.attn.qkv.weight"))
    assert block.split()[-4:] == ["288×96", "-", "frozen", "-"]
    assert lines[0].split()[:2] == ["name", "shape"] and "of them train" in lines[-1]
    assert main([*words, "--summary"]) == 0
    summary = capsys.readouterr().out.splitlines()
    assert summary[1].split()[:3] == ["-", "frozen", "-"] and len(summary) < len(lines) / 4
    assert main([*words, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert len(rows) == len(lines) - 2 and sum(int(line.split()[3]) for line in summary[1:]) == len(rows)


def test_configs_without_an_optimizer_are_refused() -> None:
    with pytest.raises(ValueError, match="no optim_wrapper.optimizer"):
        parameter_rows(Config(dict(optim_wrapper=dict(type="OptimWrapper"))))
