"""Writes the golden values of ViTDet, or compares a checkout of detectron2 with those that are stored.

    python tests/golden/make_vitdet.py --detectron2 CHECKOUT            # write tests/golden/vitdet.safetensors
    python tests/golden/make_vitdet.py --detectron2 CHECKOUT --check    # compute again and print the differences

CHECKOUT is a folder with https://github.com/facebookresearch/detectron2 at commit 02b5c4e. Its ``vit.py`` and
``utils.py`` run as they are; of ``batch_norm.py``, ``wrappers.py`` and ``fpn.py``, which need compiled code and fvcore,
only what ViTDet uses is taken.
"""

import argparse
import ast
import importlib.util
import sys
import types
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import torch
import torch.nn.functional as F
import vitdet_inputs as inputs
from dino_inputs import fill, normal
from make_dino import TOLERANCE, differences
from safetensors.torch import save_file
from torch import Tensor, nn

COMMIT = "02b5c4e295e990042a714712c21dc79b731e8833"


def taken(path: Path, name: str, **names: object) -> object:
    """One class or function of a file, run with ``names`` in place of the file's imports."""
    (node,) = [node for node in ast.parse(path.read_text()).body if getattr(node, "name", None) == name]
    namespace = {"torch": torch, "nn": nn, "F": F, "warnings": warnings, **names}
    exec(compile(ast.Module([node], []), str(path), "exec"), namespace)
    return namespace[name]


@contextmanager
def imported(checkout: Path) -> Iterator[SimpleNamespace]:
    """detectron2's ViTDet, for as long as the context lasts.

    Raises:
        FileNotFoundError: the folder holds no detectron2.
    """
    backbones = checkout / "detectron2/modeling/backbone"
    if not (backbones / "vit.py").is_file():
        raise FileNotFoundError(f"{checkout} holds no detectron2/modeling/backbone/vit.py")
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
    for name, setting in inputs.SETTINGS.items():
        in_windows = [index for index in range(inputs.DEPTH) if index not in setting.global_blocks]
        model = detectron2.ViT(
            img_size=inputs.SIDE,
            patch_size=inputs.PATCH,
            embed_dim=inputs.WIDTH,
            depth=inputs.DEPTH,
            num_heads=inputs.HEADS,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            use_abs_pos=setting.positions,
            window_size=setting.window_size,
            window_block_indexes=in_windows if setting.window_size else (),
            pretrain_img_size=inputs.SIDE,
            pretrain_use_cls_token=setting.window_size > 0,
        )
        model.load_state_dict(fill(model.state_dict()))
        output = model(inputs.image_of(setting))["last_feat"]
        (output * inputs.projection_of(name, output)).sum().backward()
        gradients = {key: dict(model.named_parameters())[key].grad for key in inputs.GRADIENTS}
        values |= {f"{name}/output": output, **{f"{name}/gradient/{key}": g for key, g in gradients.items()}}
    return values


def pyramid_values(detectron2: SimpleNamespace) -> dict[str, Tensor]:
    """Outputs and the input's gradient of the pyramid on a given map."""

    class Given(nn.Module):  # what detectron2 would take for a backbone
        def output_shape(self) -> dict[str, SimpleNamespace]:
            return {"last_feat": SimpleNamespace(stride=16, channels=inputs.WIDTH)}

        def forward(self, grid: Tensor) -> dict[str, Tensor]:
            return {"last_feat": grid}

    pyramid = detectron2.SimpleFeaturePyramid(
        Given(),
        in_feature="last_feat",
        out_channels=inputs.OUT_CHANNELS,
        scale_factors=(4.0, 2.0, 1.0, 0.5),
        top_block=detectron2.LastLevelMaxPool(),
        norm="LN",
    )
    with torch.no_grad():
        for number, parameter in enumerate(pyramid.parameters()):
            parameter.copy_(0.3 * normal(f"pyramid {number}", *parameter.shape) + (parameter.ndim == 1))
    grid = normal("pyramid input", *inputs.PYRAMID_SHAPE).requires_grad_()
    outputs = pyramid(grid)
    sum((output * inputs.projection_of(name, output)).sum() for name, output in outputs.items()).backward()
    return {**{f"pyramid/{name}": output for name, output in outputs.items()}, "pyramid/gradient": grid.grad}


def rate_values(detectron2: SimpleNamespace) -> dict[str, Tensor]:
    """Layer-wise factors of the learning rate."""
    names = [f"backbone.net.{name}" for name in inputs.LR_NAMES] + list(inputs.LR_NAMES_OUTSIDE)
    rates = [detectron2.get_vit_lr_decay_rate(name, inputs.LR_DECAY_RATE, inputs.LR_DEPTH) for name in names]
    return {"rates": torch.tensor(rates, dtype=torch.float64)}


def main(argv: list[str] | None = None) -> int:
    """Write or check; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--detectron2", type=Path, required=True, help="checkout of facebookresearch/detectron2")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "vitdet.safetensors", help="the file")
    parser.add_argument("--check", action="store_true", help="write nothing")
    args = parser.parse_args(argv)
    with imported(args.detectron2) as detectron2:
        values = {**backbone_values(detectron2), **pyramid_values(detectron2), **rate_values(detectron2)}
    values = {name: value.detach().contiguous() for name, value in values.items()}
    if args.check:
        return int(differences(values, args.out) > TOLERANCE)
    save_file(values, args.out, metadata={"commit": COMMIT, "torch": torch.__version__})
    print(f"{args.out}: {len(values)} tensors, {args.out.stat().st_size / 1000:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
