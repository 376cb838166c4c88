"""No architecture of timm is taken for another that computes other features."""

from pathlib import Path

import pytest
import timm
import timm_table
import torch
from timm_table import every_name, examine, representatives

LARGEST = 60_000_000  # numbers in two blocks; the script goes through larger ones too
RIGHT = (
    *("vit_tiny_patch16_224", "vit_small_patch14_reg4_dinov2", "vit_small_patch16_dinov3", "deit3_small_patch16_224"),
    *("flexivit_small", "deit_tiny_distilled_patch16_224", "beit_base_patch16_224", "swin_tiny_patch4_window7_224"),
)
REFUSED = (
    *("vit_small_patch16_rope_224", "vit_small_patch16_rope_ape_224", "vit_base_patch16_rpn_224"),
    *("eva02_tiny_patch14_224",),
    *("vit_relpos_small_patch16_224", "vit_xsmall_patch16_clip_224", "vit_base_patch16_siglip_gap_224", "test_vit"),
    *("vit_wee_patch16_reg1_gap_256", "vit_small_patch16_18x2_224", "swinv2_tiny_window8_256"),
)


@pytest.mark.parametrize(("verdict", "name"), [*(("right", n) for n in RIGHT), *(("refused", n) for n in REFUSED)])
def test_an_architecture_is_right_or_refused(verdict, name, tmp_path: Path):
    outcome = examine(name, every_name()[name], tmp_path)
    assert outcome.verdict == verdict, outcome
    assert verdict == "right" or "arch=" in outcome.detail or "Choose a checkpoint" in outcome.detail


@pytest.mark.walk  # minutes
def test_no_kind_of_architecture_is_wrong(tmp_path: Path):
    outcomes = [examine(name, family, tmp_path) for name, family in representatives(LARGEST).items()]
    assert len(outcomes) > 80
    assert [outcome for outcome in outcomes if outcome.verdict == "wrong"] == []
    assert sum(outcome.verdict == "right" for outcome in outcomes) > 15


@pytest.mark.parametrize(
    "options",
    [
        dict(num_heads=6),
        dict(act_layer="gelu_tanh"),
        dict(norm_layer=lambda *args, **kwargs: torch.nn.LayerNorm(*args, **kwargs | {"eps": 1e-5})),
    ],
)
def test_what_leaves_no_tensors_shows_in_the_difference(options, monkeypatch, tmp_path: Path):
    """Recognition cannot see these; the table has to."""
    name = "vit_tiny_patch16_224"
    monkeypatch.setattr(timm_table, "shallow", lambda name: timm.create_model(name, depth=2, img_size=64, **options))
    assert examine(name, "vision_transformer", tmp_path).verdict == "wrong"
