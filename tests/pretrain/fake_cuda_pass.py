"""The forward pass of a pre-training step on fake CUDA tensors; prints number formats and devices as JSON.

python fake_cuda_pass.py KIND        KIND is vit or swin
"""

import json
import sys
from functools import partial

import torch
from conftest import TINY_BACKBONE, TINY_HEAD
from fake_cuda import fake_cuda, to_fake_cuda
from far_run import SWIN
from torch import Tensor, nn

from pretrain.model import MST


def main(kind: str) -> None:
    """Prints the format of each module's output, and format and device of each loss."""
    backbone, sizes = (TINY_BACKBONE, (32, 16)) if kind == "vit" else (SWIN, (64, 32))
    mst = MST(backbone, head=TINY_HEAD, decoder=dict(channels=(8, 8, 8))).train()
    formats: dict[str, str] = {}

    def note(name: str, module: nn.Module, inputs: tuple, output: object) -> None:
        if isinstance(output, Tensor):
            assert output.is_cuda, name
            formats[name] = str(output.dtype).removeprefix("torch.")

    for name, module in mst.named_modules():
        module.register_forward_hook(partial(note, name))
    with fake_cuda(torch.bfloat16):
        to_fake_cuda(mst)
        views = [torch.empty(4, 2, 3, size, size, dtype=torch.uint8, device="cuda") for size in sizes]
        losses = mst(*views, index=torch.arange(4))  # the loader's, on the CPU
        found = {name: [str(loss.dtype), loss.device.type] for name, loss in losses.items()}
        output = mst.student.backbone(views[0][:, 0].float(), patch_tokens=True)
        features = [str(output.cls_token.dtype), str(output.patch_tokens.dtype)]
    print(json.dumps(dict(formats=formats, losses=found, features=features)))


if __name__ == "__main__":
    main(*sys.argv[1:])
