"""A training step of facebookresearch/dino, run from a checkout of its code on the CPU, or on a GPU as it is."""

import argparse
import importlib
import io
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext, redirect_stdout
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import torch
from torch import Tensor, nn
from torch import distributed as dist

MODULES = ("utils", "vision_transformer", "main_dino", "eval_linear", "eval_knn")


@contextmanager
def dino_code(checkout: Path, device: str = "cpu") -> Iterator[SimpleNamespace]:
    """Its modules; on the CPU calls for a GPU are bypassed, and a process group of one process stands for many.

    Raises:
        FileNotFoundError: the folder holds no DINO.
    """
    if not (checkout / "main_dino.py").is_file():
        raise FileNotFoundError(f"{checkout} holds no main_dino.py: give a checkout of facebookresearch/dino")
    before = {name: sys.modules.pop(name, None) for name in MODULES}  # other projects have a module of such a name too
    sys.path.insert(0, str(checkout))
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        stack.enter_context(mock.patch.object(torch.hub, "list", lambda _: []))
        if device == "cpu":
            stack.enter_context(mock.patch.object(torch.Tensor, "cuda", lambda self, **_: self))
            stack.enter_context(mock.patch.object(torch.cuda, "synchronize", lambda: None))
            stack.enter_context(mock.patch.object(torch.cuda.amp, "autocast", lambda enabled: nullcontext()))
        backend = "gloo" if device == "cpu" else "nccl"
        dist.init_process_group(backend, init_method=f"file://{folder}/group", rank=0, world_size=1)
        try:
            code = SimpleNamespace(**{name: importlib.import_module(name) for name in MODULES})
            code.utils.SmoothedValue.synchronize_between_processes = lambda self: None
            yield code
        finally:
            dist.destroy_process_group()
            sys.path.remove(str(checkout))
            for name, module in before.items():
                sys.modules.pop(name, None)
                if module is not None:
                    sys.modules[name] = module


class Unwrapped(nn.Module):
    """What stands for ``DistributedDataParallel`` in one process."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, views: list[Tensor]) -> Tensor:
        return self.module(views)


class DinoStep:
    """Student, teacher, loss and optimiser as ``main_dino.py`` puts them together.

    Args:
        dino: from ``dino_code``.
        vit: options of its ``VisionTransformer``, e.g. ``patch_size``, ``embed_dim``, ``depth``, ``num_heads``.
        num_views: of the student, two of which are global.
        out_dim: prototypes.
        device: of networks and loss.
        fp16: with autocast and loss scaling, its default on GPUs; on the CPU autocast is bypassed.
    """

    def __init__(
        self,
        dino: SimpleNamespace,
        vit: dict,
        num_views: int,
        out_dim: int,
        device: str = "cpu",
        fp16: bool = False,
    ) -> None:
        self.dino = dino
        self.scaler = torch.amp.GradScaler(device) if fp16 else None
        norm_layer = partial(nn.LayerNorm, eps=1e-6)
        networks = []
        for rate in (0.1, 0.0):
            backbone = dino.vision_transformer.VisionTransformer(
                mlp_ratio=4, qkv_bias=True, drop_path_rate=rate, norm_layer=norm_layer, **vit
            )
            head_module = dino.vision_transformer.DINOHead(vit["embed_dim"], out_dim)
            networks.append(dino.utils.MultiCropWrapper(backbone, head_module).to(device))
        self.student, self.teacher = Unwrapped(networks[0]), networks[1]
        self.teacher.load_state_dict(networks[0].state_dict())
        for parameter in self.teacher.parameters():
            parameter.requires_grad = False
        self.loss = dino.main_dino.DINOLoss(out_dim, num_views, 0.04, 0.04, 0, 2).to(device)
        self.optimizer = torch.optim.AdamW(dino.utils.get_params_groups(self.student))

    def step(self, views: list[Tensor]) -> float:
        """``train_one_epoch`` of one step on normalised views [B, 3, H, W], the two global ones first; the loss."""
        loader = [(views, torch.zeros(len(views[0])))]
        schedules = [[value] * 2 for value in (5e-4, 0.04, 0.996)]  # learning rate, weight decay, momentum
        args = argparse.Namespace(clip_grad=3.0, freeze_last_layer=1, epochs=2)
        with redirect_stdout(io.StringIO()):
            statistics = self.dino.main_dino.train_one_epoch(
                self.student,
                self.teacher,
                self.teacher,
                self.loss,
                loader,
                self.optimizer,
                *schedules,
                1,  # epoch, in which the last layer trains
                self.scaler,
                args,
            )
        return float(statistics["loss"])
