"""Detectors and segmentors as if on a GPU: our code makes the host wait in the listed places, and mixes no devices.

mmdet itself waits some 150 times in a step of Mask R-CNN; that is not ours to say.
"""

import json
from collections import Counter
from pathlib import Path

import pytest
from simulated import run

NMS = ("nms", "mst_transfer/compat/ops/boxes.py")  # how many boxes are left is for the host to know
STEP = ("tolist", "mst_transfer/engine/nonfinite.py")  # whether to leave the step out


@pytest.mark.parametrize(
    "config",
    [
        "det_configs/mst_maskrcnn_coco.py",
        pytest.param("seg_configs/mst_setr_pup_cityscapes.py", marks=pytest.mark.slow),
        pytest.param("seg_configs/mst_upernet_swin_tiny_cityscapes.py", marks=pytest.mark.slow),
    ],
)
def test_our_code_waits_in_the_listed_places_only(config: str) -> None:
    found = json.loads(run(str(Path(__file__).parent / "far_heads.py"), config, "96", "128").splitlines()[-1])
    for stage, number in {"train": 1, "test": 0}.items():
        ours = [event for event in found[stage] if event["ours"] and event["kind"] == "wait"]
        seen = Counter((event["what"], event["file"]) for event in ours)
        assert seen[STEP] == number and set(seen) <= {STEP, NMS}, json.dumps(ours, indent=1)
    assert not found["without_gradient"]
