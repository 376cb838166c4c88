"""Examples made by installed packages: transformers (5.x, in files and in memory), mmseg and timm."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import timm
import torch
from source_examples import PLAIN, SHARED_TABLE, LiveExample, SourceExample, randomise, saved, views
from torch import Tensor

HUGGINGFACE = "transformers ViT, DINOv2, MAE, BEiT"
OPENMMLAB = "mmpretrain, mmseg ViT"
NO_NAMES: dict[str, Any] = {}


def huggingface(
    model_class: str,
    config_class: str,
    config: dict[str, Any],
    *,
    in_file: bool,
    num_prefix: int = 1,
    source: str = HUGGINGFACE,
    arch: str = "vit_tiny_patch16_224",
    arch_kwargs: dict[str, Any] = NO_NAMES,
    interpolation: str = "timm",
    backbone: Callable[[Any], Any] = lambda model: model,
    sizes: tuple[tuple[int, int], ...] = ((16, 16),),
    **call: Any,
) -> SourceExample:
    """An example of transformers: classes and arguments of model and config, and how timm builds the same.

    Args:
        in_file: names as in files; False: as in memory.
        num_prefix: class and register tokens.
        source: scheme by which it has to be read.
        backbone: the part of the model that gives features.
        **call: arguments of the forward pass.
    """
    import transformers

    size = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=16, patch_size=4)
    model: Any = randomise(getattr(transformers, model_class)(getattr(transformers, config_class)(**size, **config)))
    trunk = backbone(model)

    def features(image: Tensor) -> Tensor:
        return trunk(image, **call).last_hidden_state[:, num_prefix:]

    return SourceExample(
        name=model_class,
        source=source,
        content=saved(model) if in_file else dict(model.state_dict()),
        arch=arch,
        arch_kwargs=PLAIN | arch_kwargs,
        views=views(features, *sizes),
        interpolation=interpolation,
    )


WIDE_TOO = ((16, 16), (12, 24))
MLP, BEIT = dict(intermediate_size=32), "beit_base_patch16_224"
OF_BEIT: dict[str, Any] = dict(
    config=MLP | dict(use_relative_position_bias=True, use_mean_pooling=False, layer_norm_eps=1e-6),
    arch=BEIT,
    arch_kwargs=dict(use_fc_norm=False, init_values=0.1),
)
HUGGINGFACE_MODELS: dict[str, dict[str, Any]] = {
    "ViTModel": dict(config_class="ViTConfig", config=MLP),
    "ViTForImageClassification": dict(config_class="ViTConfig", config=MLP, backbone=lambda model: model.vit),
    "DeiTModel": dict(
        config_class="DeiTConfig", config=MLP, num_prefix=2, arch="deit_tiny_distilled_patch16_224", arch_kwargs={}
    ),
    "ViTMAEForPreTraining": dict(config_class="ViTMAEConfig", config=MLP | dict(mask_ratio=0.0)),
    "Dinov2Model": dict(
        config_class="Dinov2Config",
        config=dict(mlp_ratio=2),
        arch_kwargs=dict(init_values=1.0),
        interpolation="dino",
    ),
    "Dinov2WithRegistersModel": dict(
        config_class="Dinov2WithRegistersConfig",
        config=dict(mlp_ratio=2, use_swiglu_ffn=True),
        num_prefix=5,
        arch="vit_giant_patch14_reg4_dinov2",
        arch_kwargs=dict(mlp_ratio=3.0, init_values=1.0),
        sizes=WIDE_TOO,
    ),
    "DINOv3ViTModel": dict(
        config_class="DINOv3ViTConfig",
        config=MLP | dict(num_register_tokens=4),
        num_prefix=5,
        source="transformers DINOv3",
        arch="vit_small_patch16_dinov3_qkvb",
        sizes=WIDE_TOO,
    ),
    "BeitModel": dict(config_class="BeitConfig", **OF_BEIT),
    "Data2VecVisionModel": dict(config_class="Data2VecVisionConfig", **OF_BEIT),
}


def vit_mae(in_file: bool) -> SourceExample:
    """Its encoder shuffles patches; without masking, given noise keeps them in order."""
    spec = HUGGINGFACE_MODELS["ViTMAEForPreTraining"]
    noise = torch.arange(16.0)[None]
    return huggingface("ViTMAEForPreTraining", **spec, in_file=in_file, backbone=lambda model: model.vit, noise=noise)


def gated_dinov3(in_file: bool) -> SourceExample:
    """With SwiGLU."""
    spec = HUGGINGFACE_MODELS["DINOv3ViTModel"] | dict(
        config=MLP | dict(num_register_tokens=4, use_gated_mlp=True, hidden_act="silu"),
        arch="vit_small_plus_patch16_dinov3_qkvb",
    )
    return huggingface("DINOv3ViTModel", **spec, in_file=in_file)


def masked_beit(in_file: bool) -> SourceExample:
    """The pre-training model: one table for all blocks, final norm outside the encoder."""
    import transformers

    size = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=16, patch_size=4)
    tables = dict(use_shared_relative_position_bias=True, use_absolute_position_embeddings=True)
    config = transformers.BeitConfig(**size, **tables, **MLP, use_mask_token=True, vocab_size=8)
    model: Any = randomise(transformers.BeitForMaskedImageModeling(config))
    return SourceExample(
        name="BeitForMaskedImageModeling",
        source=HUGGINGFACE,
        content=saved(model) if in_file else dict(model.state_dict()),
        arch=BEIT,
        arch_kwargs=PLAIN | SHARED_TABLE | dict(use_abs_pos_emb=True),
        views=views(lambda image: model.layernorm(model.beit(image).last_hidden_state)[:, 1:]),
    )


def mmseg_model(name: str) -> SourceExample:
    """A backbone of mmseg."""
    from mmseg.models import backbones

    import mst_transfer  # noqa: F401  (stands in for mmcv's compiled operations)

    size: dict[str, Any] = dict(img_size=16, patch_size=4, embed_dims=16, num_layers=2, num_heads=2, mlp_ratio=2)
    norm = dict(type="LN", eps=1e-6)
    size |= dict(final_norm=True, norm_cfg=norm, out_indices=(1,))
    if name == "VisionTransformer":
        model = backbones.VisionTransformer(**size)
        arch, changes = "vit_tiny_patch16_224", {}
    else:
        model = getattr(backbones, name)(**size, init_values=0.1)
        arch = BEIT
        changes = dict(use_fc_norm=False, init_values=0.1, use_rel_pos_bias=True, use_abs_pos_emb=name == "MAE")
    randomise(model)
    return SourceExample(
        name=f"mmseg_{name}",
        source=OPENMMLAB,
        content={"state_dict": {f"backbone.{key}": tensor for key, tensor in model.state_dict().items()}},
        arch=arch,
        arch_kwargs=PLAIN | changes,
        views=views(lambda image: model(image)[0].flatten(2).transpose(1, 2)),
    )


def timm_model(name: str, arch: str, source: str, **changes: Any) -> SourceExample:
    """timm's own names."""
    model: Any = timm.create_model(arch, num_classes=4, **(PLAIN | changes))
    randomise(model)
    options = {key: value for key, value in (PLAIN | changes).items() if key != "num_classes"}
    return SourceExample(
        name=name,
        source=source,
        content=dict(model.state_dict()),
        arch=arch,
        arch_kwargs=options,
        views=views(lambda image: model.forward_features(image)[:, -16:]),
    )


def _live() -> list[LiveExample]:
    special = {
        "ViTMAEForPreTraining": vit_mae,
        "DINOv3ViTModel_gated": gated_dinov3,
        "BeitForMaskedImageModeling": masked_beit,
    }
    plain = {
        name: partial(huggingface, name, **spec) for name, spec in HUGGINGFACE_MODELS.items() if name not in special
    }
    examples = [
        LiveExample(f"{name}_{'file' if in_file else 'memory'}", "transformers", partial(make, in_file=in_file))
        for name, make in (plain | special).items()
        for in_file in (True, False)
    ]
    examples += [
        LiveExample(f"mmseg_{n}", "mmseg", partial(mmseg_model, n)) for n in ("VisionTransformer", "BEiT", "MAE")
    ]
    timm_names = "timm, DINO, DeiT, MST"
    timm_examples = {
        "timm_vit": ("vit_tiny_patch16_224", timm_names, {}),
        "timm_registers": ("vit_tiny_patch16_224", timm_names, dict(reg_tokens=3, no_embed_class=True)),
        "timm_fc_norm": ("vit_tiny_patch16_224", timm_names, dict(global_pool="avg")),
        "timm_deit3": ("deit3_small_patch16_224", timm_names, dict(no_embed_class=False)),
        "timm_beit": (BEIT, "BEiT, SimMIM", dict(init_values=0.1)),
    }
    examples += [
        LiveExample(name, "timm", partial(timm_model, name, arch, source, **changes))
        for name, (arch, source, changes) in timm_examples.items()
    ]
    return examples


LIVE_EXAMPLES = _live()
