"""Every source's checkpoint goes through the adapters into a training step of mmdet and of mmseg."""

import pytest
from live_sources import LIVE_EXAMPLES
from mmengine.registry import DefaultScope, init_default_scope
from source_table import makers, measure

LIVE = {example.name: example for example in LIVE_EXAMPLES}
GOLDEN = sorted(set(makers()) - set(LIVE))


@pytest.fixture(autouse=True)
def scope():
    before = DefaultScope.get_current_instance()
    yield
    init_default_scope(before.scope_name if before else "mmengine")


@pytest.mark.parametrize("name", [*GOLDEN, *LIVE])
def test_row_is_sound(name: str):
    if name in LIVE and not LIVE[name].available:
        pytest.skip(f"{LIVE[name].package} is not installed")
    result = measure(makers()[name]())
    assert result.sound, result
