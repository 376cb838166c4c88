"""Every source's checkpoint goes through the adapters into a training step of mmdet and of mmseg."""

import pytest
from live_sources import LIVE_EXAMPLES, MISSING
from source_table import makers, measure


@pytest.mark.parametrize("name", [*sorted(set(makers()) - set(LIVE_EXAMPLES)), *LIVE_EXAMPLES])
def test_row_is_sound(name: str):
    if name in MISSING:
        pytest.skip("transformers is not installed")
    result = measure(makers()[name]())
    assert result.sound, result
