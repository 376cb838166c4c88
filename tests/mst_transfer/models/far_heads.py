"""Losses, a step and predictions of a narrow model on the device of ``far_device``; prints what the host did, as JSON.

python far_heads.py CONFIG HEIGHT WIDTH        CONFIG as in det_configs/ or seg_configs/
"""

import json
import sys

import mmengine.structures.instance_data as instance_data
import torch
from far_device import NAME, FarDevice, FarTensor
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.utils import import_modules_from_strings
from narrow_nets import narrow_transfer, random_samples

from mst_transfer.registry import OPTIM_WRAPPERS


def main(config: str, *size: str) -> None:
    """Prints the events of training and of prediction, and trained parameters without a gradient."""
    height, width = map(int, size)
    cfg = Config.fromfile(config)
    narrow_transfer(cfg.model)
    cfg.model.backbone.update(checkpoint=None)
    init_default_scope(cfg.default_scope)
    import_modules_from_strings(f"{cfg.default_scope}.models")
    instance_data.IndexType = instance_data.IndexType | FarTensor  # mmengine lists the types of CUDA only
    classes = 80 if cfg.default_scope == "mmdet" else 19
    torch.manual_seed(0)
    found: dict[str, list] = {}
    with FarDevice():
        model = MODELS.build(cfg.model).to(NAME)
        wrapper = OPTIM_WRAPPERS.build(
            dict(
                type="mst_transfer.GuardedOptimWrapper", optimizer=torch.optim.AdamW(model.parameters()),
                clip_grad=dict(max_norm=1.0),
            )
        )  # fmt: skip
        batch = dict(
            inputs=[torch.randint(0, 256, (3, height, width), dtype=torch.uint8) for _ in range(2)],
            data_samples=random_samples(cfg.default_scope, (height, width), classes, 2),
        )
        found["without_gradient"] = without = []
        step = wrapper.step  # the wrapper forgets gradients behind it

        def watched() -> None:
            without[:] = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
            step()

        wrapper.step = watched
        for _ in range(2):
            FarDevice.events.clear()
            model.train().train_step(batch, wrapper)
        found["train"] = [event._asdict() for event in FarDevice.events]
        FarDevice.events.clear()
        model.eval().test_step(dict(inputs=batch["inputs"][:1], data_samples=batch["data_samples"][:1]))
        found["test"] = [event._asdict() for event in FarDevice.events]
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
