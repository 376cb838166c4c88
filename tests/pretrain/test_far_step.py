"""A pre-training step as if on a GPU: what the host waits for and copies, that nothing mixes devices, all gradients."""

import json
from collections import Counter
from pathlib import Path

import pytest
from simulated import run

# What a step of one micro-batch may do. Whatever else shows up makes a GPU wait for the host, or the host for it.
STEP = Counter(
    {
        ("copy", "_to_copy to the device", "mmengine/model/base_model/data_preprocessor.py"): 3,  # crops, and indices
        ("copy", "_to_copy to the host", "pretrain/run/step_numbers.py"): 1,
        ("wait", "Event.synchronize", "pretrain/run/step_numbers.py"): 1,  # with the optimiser's work under way
    }
)


@pytest.mark.parametrize("kind", ["vit", pytest.param("swin", marks=pytest.mark.slow)])
def test_a_step_waits_once_and_copies_without_waiting(kind: str, photo_folder: Path, tmp_path: Path) -> None:
    words = [str(Path(__file__).parent / "far_run.py"), str(photo_folder), str(tmp_path), kind]
    found = json.loads(run(*words).splitlines()[-1])
    assert len(found["steps"]) == 12
    for number, events in enumerate(found["steps"]):
        seen = Counter((event["kind"], event["what"], event["file"]) for event in events)
        assert seen == STEP, f"step {number}: {json.dumps(events, indent=1)}"
    assert not found["without_gradient"] and not found["still"]
