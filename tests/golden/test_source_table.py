"""Every source's checkpoint goes through the adapters into a training step of mmdet and of mmseg."""

import pytest
from live_sources import LIVE_EXAMPLES
from mmengine.registry import DefaultScope, init_default_scope
from source_table import OWN, PROJECTS, Result, cases, measure

LIVE = {example.name: example for example in LIVE_EXAMPLES}
GOLDEN = sorted({case.name for case in cases()} - set(LIVE))


@pytest.fixture(autouse=True)
def scope():
    before = DefaultScope.get_current_instance()
    yield
    init_default_scope(before.scope_name if before else "mmengine")


@pytest.mark.parametrize("name", [*GOLDEN, *LIVE])
def test_row_is_sound(name: str):
    if name in LIVE and not LIVE[name].available:
        pytest.skip(f"{LIVE[name].package} is not installed")
    (case,) = cases([name])
    result = measure(case)
    assert result.sound, result


def test_no_source_is_left_out():
    assert {f"swin_{project}" for project in PROJECTS} | {f"mst_{arch}" for arch in OWN} <= set(GOLDEN)


def test_a_row_says_no_when_a_tensor_is_missing_or_features_differ():
    sound = Result("x", "X", 10, 12, 2, 1e-7, "yes", "yes")
    assert sound.sound
    for change in (dict(loaded=9), dict(difference=1e-3), dict(detection="unmoved: [...]"), dict(segmentation="no")):
        assert not Result(**{**vars(sound), **change}).sound
