"""AttMask-High and AttMask-Hint are those of its published code: the same masks from the same draws.

``make_attmask.py`` has written them.
"""

import pytest
from golden_files import read

from pretrain.attmask import attmask_high, reveal_hints

GOLDEN, METADATA = read("attmask.safetensors")
SETTINGS = METADATA["settings"]


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
    if num_patches == 196:  # else the comparison would prove little
        assert high.any() and not high.equal(hint)
