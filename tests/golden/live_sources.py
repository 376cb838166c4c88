"""Examples made by installed packages: transformers (5.x, in files and in memory), mmseg and timm."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import partial
from typing import Any

import timm
import torch
from source_examples import PLAIN, SHARED_TABLE, SourceExample, example, randomise, saved, views
from torch import Tensor

OPENMMLAB = "mmpretrain, mmseg ViT"
WIDE_TOO = ((16, 16), (12, 24))
MLP, BEIT = dict(intermediate_size=32), "beit_base_patch16_224"


def huggingface(
    name: str,
    config_class: str,
    config: dict[str, Any],
    *,
    tokens: Callable[[Any, Tensor], Tensor] = lambda model, image: model(image).last_hidden_state,
    num_prefix: int = 1,
    sizes: tuple[tuple[int, int], ...] = ((16, 16),),
    source: str = "transformers ViT, DINOv2, MAE, BEiT",
    **options: Any,
) -> SourceExample:
    """An example of transformers.

    Args:
        name: class of the model, and ``_file`` or ``_memory``: tensors have the names of files, or those of the model.
        config_class: class of its config, which gets ``config``.
        tokens: all tokens of an image behind the last norm.
        num_prefix: class and register tokens.
        sizes: of the images.
        source: scheme by which it has to be read.
        **options: how timm builds the same, see ``source_examples.example``.
    """
    import transformers

    size = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=16, patch_size=4)
    model_class = getattr(transformers, name.split("_")[0])
    model: Any = randomise(model_class(getattr(transformers, config_class)(**size, **config)))
    content = saved(model) if name.endswith("_file") else dict(model.state_dict())
    return example(name, source, content, views(lambda image: tokens(model, image)[:, num_prefix:], *sizes), **options)


OF_BEIT: dict[str, Any] = dict(
    config=MLP | dict(use_relative_position_bias=True, use_mean_pooling=False, layer_norm_eps=1e-6),
    arch=BEIT,
    use_fc_norm=False,
    init_values=0.1,
)
OF_DINOV3: dict[str, Any] = dict(config_class="DINOv3ViTConfig", num_prefix=5, source="transformers DINOv3")
HUGGINGFACE: dict[str, dict[str, Any]] = {
    "ViTModel": dict(config_class="ViTConfig", config=MLP),
    "ViTForImageClassification": dict(
        config_class="ViTConfig", config=MLP, tokens=lambda model, image: model.vit(image).last_hidden_state
    ),
    "DeiTModel": dict(config_class="DeiTConfig", config=MLP, num_prefix=2, arch="deit_tiny_distilled_patch16_224"),
    "ViTMAEForPreTraining": dict(  # its encoder shuffles patches; without masking, given noise keeps them in order
        config_class="ViTMAEConfig",
        config=MLP | dict(mask_ratio=0.0),
        tokens=lambda model, image: model.vit(image, noise=torch.arange(16.0)[None]).last_hidden_state,
    ),
    "Dinov2Model": dict(config_class="Dinov2Config", config=dict(mlp_ratio=2), init_values=1.0, interpolation="dino"),
    "Dinov2WithRegistersModel": dict(
        config_class="Dinov2WithRegistersConfig",
        config=dict(mlp_ratio=2, use_swiglu_ffn=True),
        num_prefix=5,
        sizes=WIDE_TOO,
        arch="vit_giant_patch14_reg4_dinov2",
        mlp_ratio=3.0,
        init_values=1.0,
    ),
    "DINOv3ViTModel": dict(
        config=MLP | dict(num_register_tokens=4), sizes=WIDE_TOO, arch="vit_small_patch16_dinov3_qkvb", **OF_DINOV3
    ),
    "DINOv3ViTModel_gated": dict(
        config=MLP | dict(num_register_tokens=4, use_gated_mlp=True, hidden_act="silu"),
        arch="vit_small_plus_patch16_dinov3_qkvb",
        **OF_DINOV3,
    ),
    "BeitModel": dict(config_class="BeitConfig", **OF_BEIT),
    "Data2VecVisionModel": dict(config_class="Data2VecVisionConfig", **OF_BEIT),
    "BeitForMaskedImageModeling": dict(  # one table for all blocks, final norm outside the encoder
        config_class="BeitConfig",
        config=MLP
        | dict(use_shared_relative_position_bias=True, use_absolute_position_embeddings=True)
        | dict(use_mask_token=True, vocab_size=8),
        tokens=lambda model, image: model.layernorm(model.beit(image).last_hidden_state),
        arch=BEIT,
        use_abs_pos_emb=True,
        **SHARED_TABLE,
    ),
}


def mmseg_model(name: str) -> SourceExample:
    """A backbone of mmseg."""
    from mmseg.models import backbones

    import mst_transfer  # noqa: F401  (stands in for mmcv's compiled operations)

    size: dict[str, Any] = dict(img_size=16, patch_size=4, embed_dims=16, num_layers=2, num_heads=2, mlp_ratio=2)
    size |= dict(final_norm=True, norm_cfg=dict(type="LN", eps=1e-6), out_indices=(1,))
    options: dict[str, Any] = {}
    if name != "VisionTransformer":
        size["init_values"] = 0.1
        options = dict(arch=BEIT, use_fc_norm=False, init_values=0.1, use_rel_pos_bias=True)
        options["use_abs_pos_emb"] = name == "MAE"
    model = randomise(getattr(backbones, name)(**size))
    content = {"state_dict": {f"backbone.{key}": tensor for key, tensor in model.state_dict().items()}}
    pairs = views(lambda image: model(image)[0].flatten(2).transpose(1, 2))
    return example(f"mmseg_{name}", OPENMMLAB, content, pairs, **options)


def timm_model(name: str, arch: str, source: str = "timm, DINO, DeiT, MST", **changes: Any) -> SourceExample:
    """timm's own names."""
    model: Any = randomise(timm.create_model(arch, num_classes=4, **(PLAIN | changes)))
    pairs = views(lambda image: model.forward_features(image)[:, -16:])
    return example(name, source, dict(model.state_dict()), pairs, arch, **changes)


LIVE_EXAMPLES: dict[str, Callable[[], SourceExample]] = {
    f"{name}_{place}": partial(huggingface, f"{name}_{place}", **spec)
    for name, spec in HUGGINGFACE.items()
    for place in ("file", "memory")
}
HAS_TRANSFORMERS = importlib.util.find_spec("transformers") is not None
MISSING = set() if HAS_TRANSFORMERS else set(LIVE_EXAMPLES)  # the others' packages are always installed
LIVE_EXAMPLES |= {f"mmseg_{name}": partial(mmseg_model, name) for name in ("VisionTransformer", "BEiT", "MAE")}
LIVE_EXAMPLES |= {
    name: partial(timm_model, name, arch, **changes)
    for name, (arch, changes) in {
        "timm_vit": ("vit_tiny_patch16_224", {}),
        "timm_registers": ("vit_tiny_patch16_224", dict(reg_tokens=3, no_embed_class=True)),
        "timm_fc_norm": ("vit_tiny_patch16_224", dict(global_pool="avg")),
        "timm_deit3": ("deit3_small_patch16_224", dict(no_embed_class=False)),
        "timm_beit": (BEIT, dict(source="BEiT, SimMIM", init_values=0.1)),
    }.items()
}
