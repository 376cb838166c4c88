"""Golden values of mmcv's operators, from a compiled mmcv.

To make them anew, in an environment with a compiled ``mmcv`` (CPU operators are enough):

    python tests/mst_transfer/compat/golden/ops_golden.py

``run_cases`` is what the test runs too, with the operators of ``mst_transfer.compat.ops``. mmcv has no CPU
code for the focal losses: those are tested against plain loops instead.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

FILE = Path(__file__).with_name("ops_golden.npz")


def boxes(rng: np.random.Generator, num_boxes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Overlapping boxes [N, 4] and scores [N] without ties."""
    centers = rng.uniform(20, 80, (num_boxes // 10, 2)).repeat(10, axis=0) + rng.normal(0, 4, (num_boxes, 2))
    sizes = rng.uniform(10, 40, (num_boxes, 2))
    corners = np.concatenate([centers - sizes / 2, centers + sizes / 2], axis=1).astype(np.float32)
    scores = rng.permutation(num_boxes).astype(np.float32) / num_boxes
    return torch.from_numpy(corners), torch.from_numpy(scores)


def nms_cases() -> Iterator[tuple[str, torch.Tensor]]:
    from mmcv.ops import batched_nms, nms, soft_nms

    rng = np.random.default_rng(0)
    corners, scores = boxes(rng, 120)
    for threshold in (0.3, 0.5, 0.7):
        for offset in (0, 1):
            yield f"nms/{threshold}/{offset}", nms(corners, scores, threshold, offset=offset)[1]
    yield "nms/score_and_number", nms(corners, scores, 0.5, score_threshold=0.4, max_num=7)[1]
    yield "nms/none", nms(corners[:0], scores[:0], 0.5)[1]
    labels = torch.from_numpy(rng.integers(0, 3, len(corners)))
    yield "batched_nms", batched_nms(corners, scores, labels, dict(type="nms", iou_threshold=0.5))[1]
    for method in ("naive", "linear", "gaussian"):
        for offset in (0, 1):
            dets, kept = soft_nms(corners, scores, 0.4, sigma=0.5, min_score=0.05, method=method, offset=offset)
            yield f"soft_nms/{method}/{offset}/dets", dets
            yield f"soft_nms/{method}/{offset}/kept", kept


def roi_align_cases() -> Iterator[tuple[str, torch.Tensor]]:
    from mmcv.ops import roi_align

    rng = np.random.default_rng(1)
    features = torch.from_numpy(rng.normal(size=(2, 3, 16, 21)).astype(np.float32))
    starts, sizes = rng.uniform(-10, 60, (9, 2)), rng.uniform(0, 50, (9, 2))
    image = rng.integers(0, 2, (9, 1))
    rois = torch.from_numpy(np.concatenate([image, starts, starts + sizes], axis=1).astype(np.float32))
    for size in ((4, 4), (3, 5)):
        for scale in (0.25, 1.0):
            for sampling_ratio in (0, 2):
                for aligned in (True, False):
                    x = features.clone().requires_grad_()
                    out = roi_align(x, rois, size, scale, sampling_ratio, "avg", aligned)
                    weights = torch.from_numpy(rng.normal(size=tuple(out.shape)).astype(np.float32))
                    (out * weights).sum().backward()
                    name = f"roi_align/{size[0]}x{size[1]}/{scale}/{sampling_ratio}/{aligned}"
                    yield f"{name}/forward", out.detach()
                    yield f"{name}/gradient", x.grad


def deform_cases() -> Iterator[tuple[str, torch.Tensor]]:
    from mmcv.ops import deform_conv2d, modulated_deform_conv2d

    rng = np.random.default_rng(2)
    for stride, padding, dilation, groups, deform_groups in (
        (1, 1, 1, 1, 1),
        (2, 1, 1, 2, 2),
        (1, 2, 2, 2, 1),
    ):
        x = rng.normal(size=(2, 4, 7, 9))
        weight = rng.normal(size=(6, 4 // groups, 3, 3))
        height = (7 + 2 * padding - 2 * dilation - 1) // stride + 1
        width = (9 + 2 * padding - 2 * dilation - 1) // stride + 1
        offset = rng.normal(size=(2, 18 * deform_groups, height, width))
        mask = rng.uniform(size=(2, 9 * deform_groups, height, width))
        bias = rng.normal(size=6)
        geometry = (stride, padding, dilation, groups, deform_groups)
        name = "/".join(map(str, geometry))
        tensors = [torch.from_numpy(a.astype(np.float32)).requires_grad_() for a in (x, offset, weight)]
        yield from _with_gradients(f"deform_conv/{name}", deform_conv2d(*tensors, *geometry), tensors)
        tensors = [torch.from_numpy(a.astype(np.float32)).requires_grad_() for a in (x, offset, mask, weight, bias)]
        out = modulated_deform_conv2d(*tensors, *geometry)
        yield from _with_gradients(f"modulated_deform_conv/{name}", out, tensors)


def _with_gradients(name: str, out: torch.Tensor, tensors: list[torch.Tensor]) -> Iterator[tuple[str, torch.Tensor]]:
    weights = torch.linspace(-1, 1, out.numel()).view_as(out)
    yield f"{name}/forward", out.detach()
    for index, grad in enumerate(torch.autograd.grad((out * weights).sum(), tensors)):
        yield f"{name}/gradient_{index}", grad


def run_cases() -> dict[str, np.ndarray]:
    """Name of a case → its result, with the operators that ``mmcv.ops`` has in this process."""
    cases = [*nms_cases(), *roi_align_cases(), *deform_cases()]
    return {name: np.asarray(result) for name, result in cases}


def main() -> None:
    import mmcv
    import mmcv._ext

    if not mmcv._ext.__file__.endswith((".so", ".pyd")):
        raise SystemExit(f"mmcv {mmcv.__version__} here has no compiled operators")
    versions = {"mmcv": mmcv.__version__, "torch": torch.__version__}
    np.savez_compressed(FILE, **run_cases(), versions=np.array([f"{k} {v}" for k, v in versions.items()]))
    print(f"{FILE}: {FILE.stat().st_size} bytes, {versions}")


if __name__ == "__main__":
    main()
