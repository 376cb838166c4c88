"""Examples made by installed packages: transformers (5.x, in files and in memory), mmseg and timm."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from typing import Any

import timm
import torch
from safetensors.torch import load_file
from source_examples import PLAIN, LiveExample, SourceExample, randomise, views
from torch import Tensor

HUGGINGFACE = "transformers ViT, DINOv2, MAE, BEiT"
OPENMMLAB = "mmpretrain, mmseg ViT"
NO_NAMES: dict[str, Any] = {}


def saved(model: Any) -> dict[str, Tensor]:
    """The tensors under the names that ``save_pretrained`` writes: those of files on the hub."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        return load_file(f"{folder}/model.safetensors")


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
    """An example of transformers.

    Args:
        model_class: its name in transformers.
        config_class: likewise.
        config: its arguments.
        in_file: names as in files; False: as in memory.
        num_prefix: class and register tokens.
        source: scheme by which it has to be read.
        arch: of timm.
        arch_kwargs: beyond the common size.
        interpolation: that the file shows.
        backbone: the part of the model that gives features.
        sizes: of the images.
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
    "BeitModel": dict(
        config_class="BeitConfig",
        config=MLP | dict(use_relative_position_bias=True, use_mean_pooling=False, layer_norm_eps=1e-6),
        arch=BEIT,
        arch_kwargs=dict(use_fc_norm=False, init_values=0.1),
    ),
    "Data2VecVisionModel": dict(
        config_class="Data2VecVisionConfig",
        config=MLP | dict(use_relative_position_bias=True, use_mean_pooling=False, layer_norm_eps=1e-6),
        arch=BEIT,
        arch_kwargs=dict(use_fc_norm=False, init_values=0.1),
    ),
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

    config = transformers.BeitConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=16,
        patch_size=4,
        use_mask_token=True,
        use_shared_relative_position_bias=True,
        use_absolute_position_embeddings=True,
        vocab_size=8,
    )
    model: Any = randomise(transformers.BeitForMaskedImageModeling(config))
    return SourceExample(
        name="BeitForMaskedImageModeling",
        source=HUGGINGFACE,
        content=saved(model) if in_file else dict(model.state_dict()),
        arch=BEIT,
        arch_kwargs=PLAIN
        | dict(
            use_abs_pos_emb=True,
            use_rel_pos_bias=False,
            use_shared_rel_pos_bias=True,
            use_fc_norm=False,
            init_values=0.1,
        ),
        views=views(lambda image: model.layernorm(model.beit(image).last_hidden_state)[:, 1:]),
    )


def mmseg_model(name: str) -> SourceExample:
    """A backbone of mmseg."""
    from mmseg.models import backbones

    import mst_transfer  # noqa: F401  (stands in for mmcv's compiled operations)

    size: dict[str, Any] = dict(img_size=16, patch_size=4, embed_dims=16, num_layers=2, num_heads=2, mlp_ratio=2)
    norm = dict(type="LN", eps=1e-6)
    if name == "VisionTransformer":
        model = backbones.VisionTransformer(**size, final_norm=True, norm_cfg=norm, out_indices=(1,))
        arch, changes = "vit_tiny_patch16_224", {}
    else:
        build = getattr(backbones, name)
        options = dict(init_values=0.1, final_norm=True, norm_cfg=norm, out_indices=(1,))
        model = build(**size, **options)
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
