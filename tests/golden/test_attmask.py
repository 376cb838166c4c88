"""AttMask-High and AttMask-Hint are those of its published code: the same masks from the same draws.

``make_attmask.py`` has written them.
"""

import json
from pathlib import Path

import pytest
from safetensors import safe_open

from pretrain.attmask import attmask_high, reveal_hints

with safe_open(Path(__file__).parent / "attmask.safetensors", framework="pt") as file:
    GOLDEN = {name: file.get_tensor(name) for name in file.keys()}
    SETTINGS = json.loads(file.metadata()["settings"])


@pytest.mark.parametrize("number", range(len(SETTINGS)))
@pytest.mark.parametrize("num_patches", [36, 49, 196])
def test_masks_are_equal(num_patches: int, number: int):
    setting = SETTINGS[number]
    importance, image_draws, draws = (GOLDEN[f"{num_patches}/{n}"] for n in ("importance", "image_draws", "draws"))
    high = attmask_high(importance, setting["ratio"], setting["image_prob"], image_draws)
    assert high.equal(GOLDEN[f"{num_patches}/{number}/high"])
    show_ratio = setting["show_max"] * setting["ratio"]
    hint = reveal_hints(high, importance, show_ratio, setting["show_max"], draws)
    assert hint.equal(GOLDEN[f"{num_patches}/{number}/hint"])


def test_the_settings_tell_the_modes_apart():
    """Else the comparison would prove little."""
    for number, setting in enumerate(SETTINGS):
        high, hint = GOLDEN[f"196/{number}/high"], GOLDEN[f"196/{number}/hint"]
        assert high.any() and not high.equal(hint)
        assert bool(high.any(dim=1).all()) == (setting["image_prob"] == 1.0)
