"""Weights and inputs on which DINO and this project are compared; both sides make the same ones from here.

All numbers come from numpy's ``RandomState``, whose stream numpy has promised to keep.
"""

import math
import zlib
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

VIT = dict(patch_size=16, embed_dim=48, depth=3, num_heads=3)  # of 224 px
VIEWS = {"224": (224, 224), "96": (96, 96), "rectangle": (112, 160)}
HEAD = dict(hidden_dim=32, bottleneck_dim=16)
OUT_DIM = 40

NUM_LOCAL, NUM_CENTER_UPDATES = 3, 6
VIEWS_OF = {"student": 2 + NUM_LOCAL, "teacher": 2}
LOSS = dict(warmup_teacher_temp=0.04, teacher_temp=0.07, warmup_teacher_temp_epochs=3, epochs=6)

# base, final, epochs, steps an epoch, warm-up epochs
COSINES = {
    "lr": (5e-4 * 1024 / 256, 1e-6, 30, 7, 10),
    "lr, one step of warm-up": (5e-4, 1e-6, 12, 1, 1),
    "weight decay": (0.04, 0.4, 30, 7, 0),
    "teacher momentum": (0.996, 1.0, 30, 7, 0),
}
# warm-up temperature, temperature, warm-up epochs, epochs
TEMPERATURES = {"rising": (0.04, 0.07, 30, 100), "constant": (0.04, 0.04, 0, 10), "one epoch": (0.04, 0.07, 1, 10)}

TRAIN_VIT = dict(img_size=32, patch_size=8, embed_dim=16, depth=2, num_heads=2)
TRAIN_HEAD = dict(hidden_dim=16, bottleneck_dim=8)
TRAIN = dict(
    out_dim=32,
    batch_size=4,
    epochs=5,
    steps_per_epoch=2,
    base_lr=0.128,  # 2e-3 at this batch size
    min_lr=1e-5,
    warmup_epochs=2,
    weight_decay=0.04,
    weight_decay_end=0.4,
    teacher_momentum=0.9,
    clip_grad=0.3,
    freeze_last_layer=1,
    warmup_teacher_temp=0.04,
    teacher_temp=0.07,
    warmup_teacher_temp_epochs=3,
)

KNN_SETTINGS = [(k, temperature) for k in (1, 5, 20, 200) for temperature in (0.07, 1.0)]

IMAGE_SIZE = (375, 500)  # height and width of the image that crops are drawn from
NUM_DRAWS = 5000
QUANTILES = np.linspace(0, 1, 201)
CROP_KINDS = ("global 1", "global 2", "local")


def normal(name: str, *shape: int) -> Tensor:
    """Standard normal float32 numbers that follow from the name alone."""
    random = np.random.RandomState(zlib.crc32(name.encode()))
    return torch.from_numpy(random.standard_normal(shape).astype(np.float32))


def fill(state: Mapping[str, Tensor], prefix: str = "") -> dict[str, Tensor]:
    """Weights for a network, of a size at which every part matters to the output.

    Args:
        state: names (DINO's, which are timm's) and shapes.
        prefix: another prefix gives other numbers.
    """
    filled = {}
    for name, tensor in state.items():
        values = normal(prefix + name, *tensor.shape)
        if name.endswith("weight_g"):
            values = torch.ones_like(values)
        elif "norm" in name and name.endswith("weight"):
            values = 1 + 0.1 * values
        elif name in ("cls_token", "pos_embed"):
            values = 0.5 * values
        elif name.endswith("bias"):
            values = 0.1 * values
        else:
            values = values / math.sqrt(values[0].numel())
        filled[name] = values
    return filled


def rename(name: str) -> str:
    """DINO's name of a tensor of backbone and head → that of ``MST.student`` and ``MST.teacher``."""
    return name.replace("backbone.", "backbone.vit.", 1)


def images(view: str) -> Tensor:
    """Two normalised images [2, 3, H, W] of one of ``VIEWS``."""
    return normal(f"images {view}", 2, 3, *VIEWS[view])


def loss_inputs(step: int) -> tuple[Tensor, Tensor]:
    """Logits of the student [2 + NUM_LOCAL, B, K] and of the teacher [2, B, K]; B = 3."""
    student, teacher = (normal(f"{who} logits {step}", n, 3, OUT_DIM) for who, n in VIEWS_OF.items())
    return 0.3 * student, 0.3 * teacher  # a head's logits are cosines


def head_gradients(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Gradients of a head, some of them longer than 3 and some shorter."""
    return {name: (0.05 + i % 2) * normal(f"gradient {name}", *t.shape) for i, (name, t) in enumerate(state.items())}


def crops(step: int) -> tuple[Tensor, Tensor]:
    """Global and local crops of a training step: uint8 [B, 2, 3, 32, 32] and [B, NUM_LOCAL, 3, 16, 16]."""
    random = np.random.RandomState(1000 + step)
    batch = TRAIN["batch_size"]
    sizes = ((batch, 2, 3, 32, 32), (batch, NUM_LOCAL, 3, 16, 16))
    first, second = (torch.from_numpy(random.randint(0, 256, size).astype(np.uint8)) for size in sizes)
    return first, second


def clusters(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Features that overlap so much that neighbours and temperature matter: train [600, 16], val [500, 16], labels."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(7, 16, generator=generator)

    def draw(count: int) -> tuple[Tensor, Tensor]:
        labels = torch.randint(0, 7, (count,), generator=generator)
        return centres[labels] + 2 * torch.randn(count, 16, generator=generator), labels

    (train, train_labels), (val, val_labels) = draw(600), draw(500)
    return train, train_labels, val, val_labels
