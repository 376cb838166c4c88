"""mmcv's operators from torchvision, against golden values of a compiled mmcv and against plain loops."""

import math
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import ops_golden
import pytest
import torch

from mst_transfer.compat import ops

pytestmark = pytest.mark.skipif(ops.backend() == "compiled", reason="a compiled mmcv is installed: ours is not in use")


def test_values_equal_the_compiled_ones() -> None:
    """Of every golden case; kept boxes and the forward pass of RoIAlign bit for bit."""
    golden, ours = dict(np.load(ops_golden.FILE)), ops_golden.run_cases()
    golden.pop("versions")
    assert ours.keys() == golden.keys() and len(golden) > 60
    for name, expected in golden.items():
        exact = name.startswith(("nms", "batched_nms")) or name.startswith("roi_align") and name.endswith("forward")
        tolerance = dict(rtol=0, atol=0) if exact else dict(rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(ours[name], expected, err_msg=name, **tolerance)


@pytest.mark.parametrize("weighted", [False, True])
def test_focal_loss_equals_its_formula(weighted: bool) -> None:
    from mmcv.ops import sigmoid_focal_loss

    gamma, alpha, num_classes = 2.0, 0.25, 4
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(9, num_classes, generator=generator).requires_grad_()
    target = torch.randint(0, num_classes + 1, (9,), generator=generator)
    weight = torch.tensor([0.5, 1.5, 2.0, 3.0]) if weighted else None
    loss = sigmoid_focal_loss(logits, target, gamma, alpha, weight, "none")
    expected = torch.zeros_like(loss)
    for n, c in np.ndindex(*loss.shape):
        p = 1 / (1 + math.exp(-logits[n, c].item()))
        positive = target[n] == c
        value = -alpha * (1 - p) ** gamma * math.log(p) if positive else -(1 - alpha) * p**gamma * math.log(1 - p)
        factor = weight[target[n]].item() if weighted and target[n] < num_classes else 1.0
        expected[n, c] = value * factor
    torch.testing.assert_close(loss, expected)
    if not weighted:
        inputs = logits.detach().double().requires_grad_()
        assert torch.autograd.gradcheck(lambda x: sigmoid_focal_loss(x, target, gamma, alpha, None, "none"), inputs)


def test_half_precision_is_computed_in_float32() -> None:
    from mmcv.ops import nms, roi_align

    features = torch.randn(1, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    rois = torch.tensor([[0.0, 1, 1, 6, 6]])
    for dtype in (torch.float16, torch.bfloat16):
        out = roi_align(features.to(dtype), rois.to(dtype), 2, 1.0, 0, "avg", True)
        assert out.dtype == dtype
        torch.testing.assert_close(out.float(), roi_align(features, rois, 2, 1.0, 0, "avg", True), rtol=2e-2, atol=2e-2)
        assert nms(rois[:, 1:].to(dtype), torch.ones(1, dtype=dtype), 0.5)[1].tolist() == [0]


def test_other_operators_say_what_they_are_and_how_to_get_them() -> None:
    from mmcv.ops import line_nms, nms_rotated, roi_align

    with pytest.raises(ops.OpNotAvailableError, match="'line_nms' .* only a compiled onedl-mmcv has it"):
        line_nms(torch.rand(3, 5), torch.rand(3), overlap=0.5)
    with pytest.raises(ops.OpNotAvailableError, match=r"'nms_rotated'.*MMCV_WITH_OPS=1 pip wheel --no-build-isolation"):
        nms_rotated(torch.rand(3, 5), torch.rand(3), 0.5)
    with pytest.raises(ops.OpNotAvailableError, match="pool_mode='max'"):
        roi_align(torch.rand(1, 1, 4, 4), torch.tensor([[0.0, 0, 0, 2, 2]]), 2, 1.0, 0, "max", True)


def test_the_module_is_a_proper_import() -> None:
    import mmcv._ext
    from mmcv.ops import get_compiler_version

    assert mmcv._ext.__spec__.name == "mmcv._ext" and mmcv._ext.__spec__.loader is not None
    assert pkgutil.find_loader("mmcv._ext") is not None
    assert not hasattr(mmcv._ext, "__path__") and not hasattr(mmcv._ext, "_private")
    assert "torchvision" in get_compiler_version()


def test_a_compiled_extension_takes_precedence(tmp_path: Path) -> None:
    """The finder is asked last: a real ``mmcv._ext`` beside mmcv's files wins."""
    (tmp_path / "mmcv").mkdir()
    (tmp_path / "mmcv" / "__init__.py").write_text("")
    (tmp_path / "mmcv" / "_ext.py").write_text("compiled = True")
    code = (
        "import mst_transfer, mmcv._ext; from mst_transfer.compat.ops import backend;"
        "assert mmcv._ext.compiled; assert backend() == 'compiled', backend()"
    )
    path = os.pathsep.join([str(tmp_path), str(Path(__file__).resolve().parents[3])])
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": path})


@pytest.mark.cuda
def test_cuda_equals_cpu() -> None:
    from mmcv.ops import deform_conv2d, nms, roi_align, sigmoid_focal_loss

    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 4, 16, 16, generator=generator)
    starts = torch.rand(8, 2, generator=generator) * 8
    rois = torch.cat([torch.arange(8)[:, None] % 2, starts, starts + 6], dim=1)
    offset, weight = (torch.randn(2, 18, 14, 14, generator=generator), torch.randn(5, 4, 3, 3, generator=generator))
    target = torch.arange(8) % 5
    functions = {
        "roi_align": lambda x, r, o, w, t: roi_align(x, r, 3, 1.0, 2, "avg", True),
        "deform_conv": lambda x, r, o, w, t: deform_conv2d(x, o, w),
        "focal_loss": lambda x, r, o, w, t: sigmoid_focal_loss(x[0, :, :8, 0].T.contiguous(), t),
    }
    for name, function in functions.items():
        outcomes = []
        for device in ("cpu", "cuda"):
            x = features.to(device).requires_grad_()
            out = function(x, *(tensor.to(device) for tensor in (rois, offset, weight, target)))
            grad = torch.autograd.grad(out.square().sum(), x)[0]
            outcomes.append((out.cpu(), grad.cpu()))
        for one, other in zip(*outcomes, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4, msg=lambda text, name=name: f"{name}: {text}")
    scores = torch.rand(8, generator=generator)
    assert nms(rois[:, 1:], scores, 0.3)[1].tolist() == nms(rois[:, 1:].cuda(), scores.cuda(), 0.3)[1].tolist()
