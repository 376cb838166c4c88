"""Writes one small checkpoint of each public ViT code, with features that this code computes from it.

    python tests/golden/make_vit_sources.py --checkouts FOLDER [--only mae beit]

FOLDER holds checkouts named as in MAKERS, e.g. FOLDER/dinov2 of https://github.com/facebookresearch/dinov2. Each
example becomes ``tests/golden/sources/NAME.safetensors``; ``source_examples.py`` reads them and says what is in them.

Weights are random. What these codes import from old releases of timm and numpy and find no more is replaced.
"""

import contextlib
import importlib
import importlib.metadata
import sys
import types
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import timm.models.vision_transformer as timm_vit
import torch
from golden_files import command_line
from golden_files import write as write_golden
from source_examples import FOLDER, SHARED_TABLE, SourceExample, example, flatten, views
from source_examples import randomise as randomise_with
from timm.layers import to_2tuple
from torch import Tensor, nn

randomise = partial(randomise_with, scales=("gamma", "ls"))
SIZE = dict(embed_dim=16, depth=2, num_heads=2, mlp_ratio=2)
SQUARE, WIDE = (16, 16), (12, 24)
DINO_NAMES, BEIT = "timm, DINO, DeiT, MST", "beit_base_patch16_224"


@contextlib.contextmanager
def imports_from(folder: Path) -> Iterator[None]:
    """Imports modules of a checkout, and forgets them afterwards: several checkouts have a ``models``."""
    stubs = {
        "timm.models.layers.helpers": types.SimpleNamespace(to_2tuple=to_2tuple),
        "timm.models.registry": types.SimpleNamespace(register_model=lambda build: build),
        "importlib_metadata": importlib.metadata,
    }
    before = set(sys.modules)
    with mock.patch.dict(sys.modules, stubs), mock.patch.object(sys, "path", [str(folder), *sys.path]):
        try:
            yield
        finally:
            for name in set(sys.modules) - before:
                if str(folder) in str(getattr(sys.modules[name], "__file__", "") or ""):
                    del sys.modules[name]


def prefixed(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in state.items()}


def head() -> dict[str, Tensor]:
    return {"head.mlp.0.weight": torch.ones(4, 16), "head.last_layer.weight_g": torch.ones(8, 1)}


def dino(folder: Path) -> list[SourceExample]:
    with imports_from(folder):
        module = importlib.import_module("vision_transformer")
        norm = partial(nn.LayerNorm, eps=1e-6)
        build = partial(module.VisionTransformer, img_size=[16], patch_size=4, qkv_bias=True, norm_layer=norm, **SIZE)
        student, teacher = randomise(build(), 0), randomise(build(), 1)
        pairs = views(lambda x: teacher.get_intermediate_layers(x)[0][:, 1:], SQUARE, WIDE)
    full = {
        "student": prefixed("module.backbone.", student.state_dict()) | prefixed("module.", head()),
        "teacher": prefixed("backbone.", teacher.state_dict()) | head(),
        "dino_loss": {"center": torch.zeros(1, 8)},
    }
    dino = partial(example, source=DINO_NAMES, views=pairs, interpolation="dino")
    backbone = dino("dino_backbone", content=teacher.state_dict(), option="dino")
    return [dino("dino_full", content=full), backbone]


def dinov2(folder: Path) -> list[SourceExample]:
    with imports_from(folder), mock.patch.dict("os.environ", XFORMERS_DISABLED="1"):
        module = importlib.import_module("dinov2.models.vision_transformer")
        block = partial(module.Block, attn_class=module.MemEffAttention)
        build = partial(
            module.DinoVisionTransformer, img_size=16, patch_size=4, block_fn=block, init_values=1.0, **SIZE
        )
        chunked = randomise(build(block_chunks=2), 2)
        options = dict(ffn_layer="swiglufused", interpolate_antialias=True, interpolate_offset=0.0)
        registers = randomise(build(block_chunks=0, num_register_tokens=4, **options), 3)
        patches = [
            views(lambda x, m=model: m.forward_features(x)["x_norm_patchtokens"], SQUARE, WIDE)
            for model in (chunked, registers)
        ]
    teacher = prefixed("backbone.", chunked.state_dict()) | prefixed("dino_", head()) | prefixed("ibot_", head())
    arch = "vit_giant_patch14_reg4_dinov2"
    options = dict(source="DINOv2", init_values=1.0)
    training = example(
        "dinov2_training", content={"teacher": teacher}, views=patches[0], interpolation="dino", **options
    )
    content = registers.state_dict()
    return [
        training,
        example("dinov2_registers", content=content, views=patches[1], arch=arch, mlp_ratio=3.0, **options),
    ]


def dinov3(folder: Path) -> list[SourceExample]:
    examples = []
    with imports_from(folder):
        module = importlib.import_module("dinov3.models.vision_transformer")
        size = {name: value for name, value in SIZE.items() if name != "mlp_ratio"}
        common = dict(**size, img_size=16, patch_size=4, layerscale_init=1.0, n_storage_tokens=4, mask_k_bias=True)
        common |= dict(norm_layer="layernormbf16", pos_embed_rope_dtype="fp32")
        for number, (ffn, ratio) in enumerate([("mlp", 2), ("swiglu", 3)]):
            model = module.DinoVisionTransformer(ffn_layer=ffn, ffn_ratio=ratio, **common)
            model.init_weights()  # sets the periods and the mask of the biases
            randomise(model, 4 + number)
            pairs = views(lambda x, m=model: m.forward_features(x)["x_norm_patchtokens"], SQUARE, WIDE)
            plus = "_plus" if ffn == "swiglu" else ""
            arch = f"vit_small{plus}_patch16_dinov3_qkvb"
            examples.append(example(f"dinov3_{ffn}", "DINOv3", model.state_dict(), pairs, arch))
    return examples


def ibot(folder: Path) -> list[SourceExample]:
    with imports_from(folder):
        module = importlib.import_module("models.vision_transformer")
        build = partial(module.VisionTransformer, img_size=[16], patch_size=4, qkv_bias=True, **SIZE)
        student = randomise(build(masked_im_modeling=True), 6)
        teacher = randomise(build(return_all_tokens=True), 7)
        pairs = views(lambda x: teacher(x)[:, 1:], SQUARE, WIDE)
    full = {
        "student": prefixed("module.backbone.", student.state_dict()) | prefixed("module.", head()),
        "teacher": prefixed("backbone.", teacher.state_dict()) | head(),
        "ibot_loss": {"center": torch.zeros(1, 8), "center2": torch.zeros(1, 1, 8)},
    }
    return [example("ibot_full", DINO_NAMES, full, pairs, interpolation="dino")]


def mae(folder: Path) -> list[SourceExample]:
    def block(*args: Any, qk_scale: None = None, **kwargs: Any) -> nn.Module:
        return timm_vit.Block(*args, **kwargs)

    stub = types.SimpleNamespace(PatchEmbed=timm_vit.PatchEmbed, Block=block)
    with (
        imports_from(folder),
        mock.patch.object(np, "float", float, create=True),
        mock.patch.dict(sys.modules, {"timm.models.vision_transformer": stub}),
    ):
        module = importlib.import_module("models_mae")
        decoder = dict(decoder_embed_dim=8, decoder_depth=1, decoder_num_heads=2)
        norm = partial(nn.LayerNorm, eps=1e-6)
        model = randomise(module.MaskedAutoencoderViT(img_size=16, patch_size=4, norm_layer=norm, **decoder, **SIZE), 8)

        def features(image: Tensor) -> Tensor:
            tokens, _, restore = model.forward_encoder(image, mask_ratio=0.0)  # shuffled
            return tokens[:, 1:].gather(1, restore[..., None].expand(-1, -1, tokens.shape[-1]))

        pairs = views(features, SQUARE)
    return [example("mae", "MAE", {"model": model.state_dict()}, pairs)]


def moco(folder: Path) -> list[SourceExample]:
    with imports_from(folder), mock.patch.object(timm_vit.VisionTransformer, "num_tokens", 1, create=True):
        module = importlib.import_module("vits")
        norm = partial(nn.LayerNorm, eps=1e-6)
        options = dict(img_size=16, patch_size=4, qkv_bias=True, norm_layer=norm, num_classes=4)
        build = partial(module.VisionTransformerMoCo, **options, **SIZE)
        base, momentum = randomise(build(), 9), randomise(build(), 10)
        pairs = views(lambda x: momentum.forward_features(x)[:, 1:], SQUARE)
    state = prefixed("module.base_encoder.", base.state_dict())
    state |= prefixed("module.momentum_encoder.", momentum.state_dict())
    state["module.predictor.0.weight"] = torch.ones(2, 2)
    return [example("moco_v3", "MoCo v3", {"state_dict": state}, pairs)]


def beit(folder: Path) -> list[SourceExample]:
    examples = []
    norm = partial(nn.LayerNorm, eps=1e-6)
    options = dict(img_size=16, patch_size=4, norm_layer=norm, qkv_bias=True, init_values=0.1, **SIZE)
    no_mask = torch.zeros(1, 16, dtype=torch.bool)
    for version in ("beit", "beit2"):
        with imports_from(folder / version):
            module = importlib.import_module("modeling_pretrain")
            model = module.VisionTransformerForMaskedImageModeling(
                use_shared_rel_pos_bias=True, use_abs_pos_emb=False, vocab_size=8, **options
            )
            randomise(model, 11 if version == "beit" else 12)
            pairs = views(lambda x, m=model: m.forward_features(x, no_mask)[:, 1:], SQUARE)
            content = {"model": model.state_dict()}
            name = f"{version}_pretraining"
            examples.append(example(name, "BEiT, SimMIM", content, pairs, BEIT, **SHARED_TABLE))
            if version == "beit":
                tuned = importlib.import_module("modeling_finetune").VisionTransformer(
                    use_rel_pos_bias=True, use_abs_pos_emb=False, num_classes=4, **options
                )
                randomise(tuned, 13)
                pairs = views(lambda x, m=tuned: m.get_intermediate_layers(x)[-1][:, 1:], SQUARE)
                content = {"model": tuned.state_dict()}
                examples.append(example("beit_finetuned", "BEiT, SimMIM", content, pairs, BEIT, init_values=0.1))
    return examples


def simmim(folder: Path) -> list[SourceExample]:
    with imports_from(folder):
        module = importlib.import_module("models.simmim")
        options = dict(img_size=16, patch_size=4, num_classes=0, qkv_bias=True, init_values=0.1, use_abs_pos_emb=False)
        options |= dict(
            use_shared_rel_pos_bias=True, use_mean_pooling=False, norm_layer=partial(nn.LayerNorm, eps=1e-6)
        )
        encoder = module.VisionTransformerForSimMIM(**options, **SIZE)
        model = randomise(module.SimMIM(encoder, encoder_stride=4), 14)
        no_mask = torch.zeros(1, 4, 4)
        pairs = views(lambda x: encoder(x, no_mask).flatten(2).transpose(1, 2), SQUARE)
    return [example("simmim_vit", "BEiT, SimMIM", {"model": model.state_dict()}, pairs, BEIT, **SHARED_TABLE)]


def mmpretrain(folder: Path) -> list[SourceExample]:
    """Its package imports what transfer needs not; only the backbones' own modules are taken."""
    import mst_transfer  # noqa: F401  (stands in for mmcv's compiled operations)

    packages = ("mmpretrain", "mmpretrain.models", "mmpretrain.models.backbones", "mmpretrain.models.utils")
    stubs = {name: types.ModuleType(name) for name in packages}
    for name, stub in stubs.items():
        stub.__path__ = [str(folder / name.replace(".", "/"))]
    size = dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32)
    with imports_from(folder), mock.patch.dict(sys.modules, stubs):
        inside = "mmpretrain.models.utils."
        for module, names in {
            "attention": ("MultiheadAttention", "BEiTAttention"),
            "norm": ("build_norm_layer",),
            "swiglu_ffn": ("SwiGLUFFNFused",),
            "helpers": ("to_2tuple",),
            "embed": ("resize_pos_embed", "resize_relative_position_bias_table"),
        }.items():
            for name in names:
                setattr(stubs["mmpretrain.models.utils"], name, getattr(importlib.import_module(inside + module), name))
        common = dict(arch=size, img_size=16, patch_size=4, out_type="featmap")
        vit = importlib.import_module("mmpretrain.models.backbones.vision_transformer").VisionTransformer
        plain_vit = randomise(vit(**common), 15)
        gated = dict(layer_scale_init_value=1.0, layer_cfgs=dict(ffn_type="swiglu_fused"))
        swiglu = randomise(vit(**common, **gated), 16)
        beit_vit = importlib.import_module("mmpretrain.models.backbones.beit").BEiTViT
        tuned = randomise(beit_vit(**common, norm_cfg=dict(type="LN", eps=1e-6), final_norm=True), 17)
        pairs = [views(lambda x, m=m: m(x)[0].flatten(2).transpose(1, 2), SQUARE) for m in (plain_vit, swiglu, tuned)]
    states = [{"state_dict": prefixed("backbone.", model.state_dict())} for model in (plain_vit, swiglu, tuned)]
    states[0]["state_dict"]["neck.decoder_pred.bias"] = torch.ones(2)
    giant, source = "vit_giant_patch14_dinov2", "mmpretrain, mmseg ViT"
    tables = dict(use_rel_pos_bias=True, use_fc_norm=False, init_values=0.1)
    return [
        example("mmpretrain_vit", source, states[0], pairs[0]),
        example("mmpretrain_swiglu", source, states[1], pairs[1], giant, mlp_ratio=3.0, init_values=1.0),
        example("mmpretrain_beit", source, states[2], pairs[2], BEIT, **tables),
    ]


MAKERS = {  # commit and maker of each checkout
    "dino": ("7c446df", dino),
    "dinov2": ("b8931f7", dinov2),
    "dinov3": ("6876159", dinov3),
    "ibot": ("da316d8", ibot),
    "mae": ("efb2a80", mae),
    "moco-v3": ("c349e6e", moco),
    "unilm": ("768a3c8", beit),
    "SimMIM": ("d3e29bc", simmim),
    "mmpretrain": ("ee7f2e8", mmpretrain),
}


def write(made: SourceExample, checkout: str) -> None:
    """Writes one example; see ``source_examples.py`` for the layout."""
    tensors = {f"checkpoint/{key}": tensor for key, tensor in flatten(made.content).items()}
    for number, (image, tokens) in enumerate(made.views):
        tensors |= {f"view{number}/image": image, f"view{number}/tokens": tokens}
    names = {name: getattr(made, name) for name in ("source", "arch", "arch_kwargs", "interpolation", "option")}
    write_golden(FOLDER / f"{made.name}.safetensors", tensors, checkout=checkout, **names)


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--checkouts", type=Path, required=True, help="folder with one checkout of each code")
    parser.add_argument("--only", nargs="+", choices=MAKERS, default=list(MAKERS), help="checkouts to take")
    args = parser.parse_args()
    for checkout in args.only:
        commit, make = MAKERS[checkout]
        for made in make(args.checkouts.resolve() / checkout):
            write(made, f"{checkout} {commit}")


if __name__ == "__main__":
    main()
