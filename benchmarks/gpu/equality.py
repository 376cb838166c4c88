"""Stage ``equality``: the device computes what the CPU does, and leaves out the steps that it should.

Losses agree to 1e-4 and gradients to 1e-3 in fp32; masks, kept boxes and run lengths are equal; steps in half
precision have nearly the same loss; a step whose loss is NaN, or whose gradients overflow, changes no weight.
"""

import copy
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import Hook
from torch import Tensor, nn

from benchmarks.gpu.device import Task, arithmetic, each
from benchmarks.gpu.steps import views_of
from benchmarks.gpu.transfer import build_head, head_loss, random_inputs
from benchmarks.gpu.whole_runs import run_in_process, write_config
from benchmarks.measure import Row, within
from benchmarks.operators import random_boxes
from benchmarks.step import FULL, QUICK, OurStep
from mst_transfer.evaluation.mask_encoding import encode_masks
from pretrain.attmask import build_mask_generator

LOSS, GRADIENT, HALF = 1e-4, 1e-3, 0.05
SWIN = dict(arch="swin_tiny_patch4_window7_224", drop_path_rate=0.0)
MASKS = (dict(mode="attention", p=0.5), dict(mode="random", p=0.3), dict(mode="attention_high"))


def difference(found: Tensor, expected: Tensor, least: float = 1e-30) -> float:
    """Norm of the difference, relative to the expected norm, or to ``least`` if that is larger."""
    if found.shape != expected.shape:
        return float("inf")
    found, expected = found.cpu().double(), expected.cpu().double()
    return ((found - expected).norm() / max(expected.norm().item(), least)).item()


def compare_nets(work: str, net: nn.Module, loss_of: Callable[[Any, str], Tensor], device: str) -> Iterator[Row]:
    """Loss and gradients of a net on the CPU, and of a copy on the device."""
    losses, gradients = [], []
    for place in ("cpu", device):
        model = copy.deepcopy(net).to(place)
        losses.append(loss_of(model, place))
        losses[-1].backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    least = 1e-3 * sum(gradient.double().square().sum().item() for gradient in gradients[0].values()) ** 0.5
    apart = {name: difference(gradients[1][name], gradient, least) for name, gradient in gradients[0].items()}
    worst = max(apart, key=lambda name: apart[name])
    yield within(work, "loss, relative difference", difference(losses[1].detach(), losses[0].detach()), LOSS)
    yield within(work, "gradients, relative difference", apart[worst], GRADIENT, note=f"worst: {worst}")


def compare_mst(name: str, vit: dict[str, Any], task: Task) -> Iterator[Row]:
    """MST with a mask that does not depend on rounding."""
    work = QUICK if task.tiny else FULL | {"batch": 2}
    views = views_of(work, 2, "cpu")
    model = OurStep(True, None, work | {"vit": (vit or work["vit"]) | {"drop_path_rate": 0.0}}).model
    model.mask_generator = build_mask_generator(mode="random", p=0.3)

    def loss(net: Any, place: Any) -> Any:
        return net(**{key: view.to(place) for key, view in views.items()})["loss"]

    yield from compare_nets(name, model, loss, task.device)


def compare_head(name: str, task: Task) -> Iterator[Row]:
    """A head's net; our SETR takes another path on the CPU."""
    net, inputs = build_head(name, True, Task("cpu", task.tiny)), random_inputs(name, task.tiny)
    yield from compare_nets(name, net, lambda model, _: head_loss(model, inputs), task.device)


def compare_masks(task: Task) -> Iterator[Row]:
    """Masks of pre-training from the same attention, and run lengths of the same instance masks."""
    importance, index = torch.rand(16, 196), torch.arange(8)
    places = ("cpu", task.device)
    for options in MASKS:
        masks = build_mask_generator(**options)
        here, there = (masks(importance.to(place), index.to(place), 3, 2, 196) for place in places)
        assert here is not None and there is not None
        yield within(f"masks, {options['mode']}", "patches that differ", (here != there.cpu()).sum().item(), 0)
    left, top, right, bottom = random_boxes(50, torch.Generator().manual_seed(0)).T[..., None, None]
    rows, columns = torch.arange(800)[:, None], torch.arange(1333)
    instances = (rows >= top) & (rows <= bottom) & (columns >= left) & (columns <= right) & (rows * columns % 7 > 0)
    codes = [list(encode_masks(instances.to(place))) for place in places]
    apart = sum(here != there for here, there in zip(*codes, strict=True))
    yield within("run lengths of 50 instance masks", "masks that differ", apart, 0)


def compare_operators(task: Task) -> Iterator[Row]:
    """mmcv's operators as its users call them: outputs and gradients; NMS keeps the same boxes."""
    from mmcv import ops

    random = torch.Generator().manual_seed(0)
    boxes, scores = random_boxes(1000, random), torch.rand(1000, generator=random)
    rois = torch.cat([torch.zeros(64, 1), boxes[:64]], dim=1)
    shapes = (1, 16, 200, 334), (2, 8, 24, 24), (2, 18, 24, 24), (2, 9, 24, 24), (8, 8, 3, 3)
    maps, image, offset, mask, kernel = (torch.randn(*shape, generator=random) for shape in shapes)
    operators: dict[str, tuple[Callable[..., Tensor], tuple[Tensor, ...]]] = {
        "RoIAlign": (lambda x: ops.roi_align(x, rois.to(x.device), 7, 0.25, 0, "avg", True), (maps,)),
        "deformable convolution": (lambda x, o, w: ops.deform_conv2d(x, o, w, 1, 1), (image, offset, kernel)),
        "modulated deformable convolution": (
            lambda x, o, m, w: ops.modulated_deform_conv2d(x, o, m, w, None, 1, 1),
            (image, offset, mask, kernel),
        ),
    }
    here, there = (ops.nms(boxes.to(place), scores.to(place), 0.5)[1] for place in ("cpu", task.device))
    yield within("NMS", "relative difference of indices", difference(there, here), 0)
    for name, (function, tensors) in operators.items():
        found = []
        for place in ("cpu", task.device):
            inputs = [tensor.to(place, copy=True).requires_grad_() for tensor in tensors]
            output = function(*inputs)
            output.square().sum().backward()
            found.append([output.detach(), *(tensor.grad for tensor in inputs)])
        yield within(name, "relative difference", max(map(difference, *reversed(found))), LOSS)


def half_precision(task: Task) -> Iterator[Row]:
    """The first loss of a training step in bfloat16 and float16, against that in fp32 on the same device."""
    work, losses = QUICK if task.tiny else FULL | {"batch": 2}, dict[str | None, float]()
    views = views_of(work, 2, task.device)
    for dtype in (None, "bfloat16", "float16"):
        torch.manual_seed(0)
        step = OurStep(True, dtype, work | {"vit": work["vit"] | {"drop_path_rate": 0.0}}, task.device)
        losses[dtype], then = step(views), step(views)
        if dtype is not None:
            apart = abs(losses[dtype] / losses[None] - 1)
            yield within(f"a step in {dtype}", "loss, relative difference", apart, HALF, note=f"the next: {then:.4g}")


class PlantFailures(Hook):
    """Makes a step's loss NaN, and another's gradients overflow; notes which steps have changed the student."""

    NAN, OVERFLOW = 7, 9  # once the loss scale has settled

    def __init__(self) -> None:
        self.changed: list[bool] = []

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Plants."""
        mst, scaler = runner.train_loop.mst, runner.optim_wrapper.scaler
        self.before = [parameter.detach().clone() for parameter in mst.student.parameters()]
        self.mean, self.scale = mst.mean.clone(), scaler.state_dict()
        if runner.iter == self.NAN:
            mst.mean.fill_(float("nan"))
        if runner.iter == self.OVERFLOW:
            scaler.load_state_dict({**self.scale, "scale": 2.0**100})

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Looks, and mends."""
        mst = runner.train_loop.mst
        self.changed.append(not all(map(torch.equal, self.before, mst.student.parameters())))
        mst.mean.copy_(self.mean)
        if runner.iter == self.OVERFLOW:
            runner.optim_wrapper.scaler.load_state_dict(self.scale)


def left_out(task: Task) -> Iterator[Row]:
    """A short pre-training in float16 with a NaN and an overflow in it."""
    hook, tiny = PlantFailures(), Task(task.device, True)
    with tempfile.TemporaryDirectory() as folder:
        run_in_process(write_config(Path(folder), tiny, "float16", photos=32, batch=8, epochs=3, compiled=False), hook)
    for name, number in (("NaN", hook.NAN), ("overflow", hook.OVERFLOW)):
        yield within(f"a step with {name} is left out", "changed", float(hook.changed[number]), 0)
    taken = f"{sum(hook.changed)} of {len(hook.changed)} steps taken; the first lower the loss scale"
    yield within("the step at the end is taken", "not changed", float(not hook.changed[-1]), 0, note=taken)


def run(task: Task) -> Iterator[Row]:
    """All of them, in fp32 without TF32 where devices are compared."""
    torch.manual_seed(0)
    with arithmetic("fp32", task.device):
        yield from each(
            {
                "ViT": compare_mst("MST, ViT", {}, task),
                "Swin": compare_mst("MST, Swin-T", SWIN, task),
                "SETR-PUP": compare_head("SETR-PUP, ViT-S", task),
                "masks": compare_masks(task),
                "operators": compare_operators(task),
                "half precision": half_precision(task),
                "left out": left_out(task),
            }
        )
