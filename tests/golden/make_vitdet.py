"""Writes the golden values of detectron2's ViTDet and ViT, or compares a checkout with those that are stored.

    python tests/golden/make_vitdet.py --detectron2 CHECKOUT            # write vitdet and detectron2_vit.safetensors
    python tests/golden/make_vitdet.py --detectron2 CHECKOUT --check    # compute again and print the differences

CHECKOUT is a folder with https://github.com/facebookresearch/detectron2 at commit 02b5c4e. Its ``vit.py`` and
``utils.py`` run as they are; of ``batch_norm.py``, ``wrappers.py`` and ``fpn.py``, which need compiled code and fvcore,
only what ViTDet uses is taken.
"""

import ast
import importlib.util
import sys
import types
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import torch
import torch.nn.functional as F
from dino_inputs import fill, normal
from golden_files import command_line, write
from torch import Tensor, nn

COMMIT = "02b5c4e295e990042a714712c21dc79b731e8833"

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


VIT = dict(img_size=32, pretrain_img_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=3)
VIT_SIZES = ((32, 32), (40, 48))


def pyramid_input() -> Tensor:
    """Map [B, C, h, w] that a pyramid is given."""
    return normal("pyramid input", *PYRAMID_SHAPE).requires_grad_()


@torch.no_grad()
def fill_pyramid(pyramid: nn.Module) -> nn.Module:
    """Gives a pyramid its weights."""
    for number, parameter in enumerate(pyramid.parameters()):
        parameter.copy_(0.3 * normal(f"pyramid {number}", *parameter.shape) + (parameter.ndim == 1))
    return pyramid


def taken(path: Path, name: str, **names: object) -> object:
    """One class or function of a file, run with ``names`` in place of the file's imports."""
    (node,) = [node for node in ast.parse(path.read_text()).body if getattr(node, "name", None) == name]
    namespace = {"torch": torch, "nn": nn, "F": F, "warnings": warnings, **names}
    exec(compile(ast.Module([node], []), str(path), "exec"), namespace)
    return namespace[name]


@contextmanager
def imported(checkout: Path) -> Iterator[SimpleNamespace]:
    """detectron2's ViTDet, for as long as the context lasts."""
    backbones = checkout / "detectron2/modeling/backbone"
    layers = checkout / "detectron2/layers"
    norm = taken(layers / "batch_norm.py", "LayerNorm")
    convolution = taken(layers / "wrappers.py", "Conv2d", check_if_dynamo_compiling=lambda: False)
    root = "detectron2.modeling.backbone"
    fpn = {
        name: taken(backbones / "fpn.py", name) for name in ("_assert_strides_are_log2_contiguous", "LastLevelMaxPool")
    }
    stand_ins = {
        "fvcore.nn.weight_init": {},
        "detectron2.layers": dict(
            CNNBlockBase=nn.Module, Conv2d=convolution, get_norm=lambda kind, width: norm(width) if kind else None
        ),
        f"{root}.fpn": fpn,
        f"{root}.backbone": dict(Backbone=nn.Module),
    }
    parents = {"fvcore", "fvcore.nn", "detectron2", "detectron2.modeling", root}
    modules = {name: types.ModuleType(name) for name in (*sorted(parents), *stand_ins)}
    for name, content in stand_ins.items():
        vars(modules[name]).update(content)
    with mock.patch.dict(sys.modules, modules), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        for name in ("utils", "vit"):
            spec = importlib.util.spec_from_file_location(f"{root}.{name}", backbones / f"{name}.py")
            module = importlib.util.module_from_spec(spec)
            sys.modules[f"{root}.{name}"] = module
            spec.loader.exec_module(module)
        yield SimpleNamespace(**vars(module), LastLevelMaxPool=fpn["LastLevelMaxPool"])


def backbone_values(detectron2: SimpleNamespace) -> dict[str, Tensor]:
    """Outputs and gradients of each setting."""
    values = {}
    for name, setting in SETTINGS.items():
        in_windows = [index for index in range(DEPTH) if index not in setting.global_blocks]
        model = detectron2.ViT(
            img_size=SIDE,
            patch_size=PATCH,
            embed_dim=WIDTH,
            depth=DEPTH,
            num_heads=HEADS,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            use_abs_pos=setting.positions,
            window_size=setting.window_size,
            window_block_indexes=in_windows if setting.window_size else (),
            pretrain_img_size=SIDE,
            pretrain_use_cls_token=setting.window_size > 0,
        )
        model.load_state_dict(fill(model.state_dict()))
        output = model(image_of(setting))["last_feat"]
        (output * projection_of(name, output)).sum().backward()
        gradients = {key: dict(model.named_parameters())[key].grad for key in GRADIENTS}
        values |= {f"{name}/output": output, **{f"{name}/gradient/{key}": g for key, g in gradients.items()}}
    return values


def pyramid_values(detectron2: SimpleNamespace) -> dict[str, Tensor]:
    """Outputs and the input's gradient of the pyramid on a given map."""

    class Given(nn.Module):  # what detectron2 would take for a backbone
        def output_shape(self) -> dict[str, SimpleNamespace]:
            return {"last_feat": SimpleNamespace(stride=16, channels=WIDTH)}

        def forward(self, grid: Tensor) -> dict[str, Tensor]:
            return {"last_feat": grid}

    pyramid = detectron2.SimpleFeaturePyramid(
        Given(),
        in_feature="last_feat",
        out_channels=OUT_CHANNELS,
        scale_factors=(4.0, 2.0, 1.0, 0.5),
        top_block=detectron2.LastLevelMaxPool(),
        norm="LN",
    )
    outputs = fill_pyramid(pyramid)(grid := pyramid_input())
    sum((output * projection_of(name, output)).sum() for name, output in outputs.items()).backward()
    return {**{f"pyramid/{name}": output for name, output in outputs.items()}, "pyramid/gradient": grid.grad}


def rate_values(detectron2: SimpleNamespace) -> dict[str, Tensor]:
    """Layer-wise factors of the learning rate."""
    names = [f"backbone.net.{name}" for name in LR_NAMES] + list(LR_NAMES_OUTSIDE)
    rates = [detectron2.get_vit_lr_decay_rate(name, LR_DECAY_RATE, LR_DEPTH) for name in names]
    return {"rates": torch.tensor(rates, dtype=torch.float64)}


@torch.no_grad()
def vit_values(detectron2: SimpleNamespace) -> dict[str, Tensor]:
    """Weights, images and features of a plain ViT."""
    generator = torch.Generator().manual_seed(0)
    model = detectron2.ViT(**VIT, norm_layer=partial(nn.LayerNorm, eps=1e-6)).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3, generator=generator)
    values = {f"weights/{name}": tensor for name, tensor in model.state_dict().items()}
    for height, width in VIT_SIZES:
        image = torch.randn(1, 3, height, width, generator=generator)
        values[f"image/{height}x{width}"] = image
        values[f"features/{height}x{width}"] = model(image)["last_feat"]
    return values


def main() -> int:
    """Writes or checks; returns the exit status."""
    args = command_line(__doc__, "facebookresearch/detectron2", check=True).parse_args()
    with imported(args.detectron2) as detectron2:
        vitdet = {**backbone_values(detectron2), **pyramid_values(detectron2), **rate_values(detectron2)}
        vit = vit_values(detectron2)
    same = write("vitdet.safetensors", vitdet, check=args.check, commit=COMMIT, torch=torch.__version__)
    same &= write("detectron2_vit.safetensors", vit, check=args.check, commit=COMMIT, model=VIT)
    return int(not same)


if __name__ == "__main__":
    sys.exit(main())
