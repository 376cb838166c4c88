"""Settings on which detectron2's ViTDet and this project are compared; weights and images come from ``dino_inputs``."""

from dataclasses import dataclass

from dino_inputs import normal
from torch import Tensor

WIDTH, HEADS, DEPTH, PATCH, SIDE = 24, 3, 4, 8, 48  # a grid of 6 x 6
OUT_CHANNELS = 10


@dataclass(frozen=True)
class Setting:
    """One backbone: window size, blocks with global attention, height and width of the image, position embeddings."""

    window_size: int
    global_blocks: tuple[int, ...]
    size: tuple[int, int] = (SIDE, SIDE)
    positions: bool = True


SETTINGS = {
    "no windows": Setting(0, ()),
    "windows without padding": Setting(3, (1, 3)),
    "windows with padding": Setting(4, (1, 3)),
    "rectangle without positions, padding": Setting(3, (3,), (56, 32), positions=False),
    "rectangle without positions": Setting(2, (3,), (64, 32), positions=False),
    "windows only": Setting(5, ()),
}
GRADIENTS = ("patch_embed.proj.weight", "blocks.0.attn.qkv.weight", "blocks.2.attn.qkv.bias", "blocks.3.norm1.weight")

PYRAMID_SHAPE = (2, WIDTH, 6, 4)  # of an image of 96 x 64 with patches of 16
LR_DECAY_RATE, LR_DEPTH = 0.7, 12
LR_NAMES = (
    "pos_embed",
    "patch_embed.proj.weight",
    "patch_embed.proj.bias",
    *(f"blocks.{index}.attn.qkv.weight" for index in range(LR_DEPTH)),
    "blocks.4.norm1.bias",
)
LR_NAMES_OUTSIDE = ("neck.levels.0.convolutions.0.weight", "roi_head.bbox_head.fc_cls.weight")


def image_of(setting: Setting) -> Tensor:
    """Image [2, 3, H, W]."""
    return normal("ViTDet image", 2, 3, *setting.size)


def projection_of(name: str, output: Tensor) -> Tensor:
    """What an output is multiplied with before it is summed and differentiated."""
    return normal(f"ViTDet {name}", *output.shape)
