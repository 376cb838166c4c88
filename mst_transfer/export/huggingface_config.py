"""Which of transformers' classes computes what a backbone computes, and its configuration."""

from __future__ import annotations

from typing import Any

import timm
from torch import nn

from mst_transfer.export.errors import ConversionError
from mst_transfer.export.original import Original

BICUBIC = 3  # PIL.Image.BICUBIC


def class_of(original: Original) -> str:
    """The class by name.

    Raises:
        ConversionError: there is none; says why.
    """
    if original.is_swin():
        return "SwinModel"
    model, names = original.skeleton, original.tensors
    rows, columns = original.metadata.grid_size
    if "pos_embed" in names and rows != columns:
        raise ConversionError(f"transformers takes square position embeddings only; these are {rows}x{columns}")
    if isinstance(model, timm.models.beit.Beit):
        return _beit_class(original)
    if not original.is_vit():
        raise ConversionError(f"{type(model).__name__} cannot be written for transformers; use --to timm or onnx")
    scaled, registers = "blocks.0.ls1.gamma" in names, "reg_token" in names
    if "fc_norm.weight" in names:
        raise ConversionError(
            "transformers' ViTs norm every token; this backbone has its norm behind the pooling (fc_norm), so its "
            "features would differ. Use --to timm, onnx or mst"
        )
    if "cls_token" not in names or "pos_embed" not in names or "norm.weight" not in names:
        raise ConversionError(
            "transformers' ViTs have a class token, position embeddings and a last norm; this has not"
        )
    if registers and not (model.no_embed_class and scaled):
        raise ConversionError(
            "transformers' Dinov2WithRegistersModel has LayerScale, and no position embeddings for register tokens"
        )
    if not registers and model.no_embed_class:
        raise ConversionError("transformers' ViTs have a position embedding for the class token; this one has none")
    if registers:
        return "Dinov2WithRegistersModel"
    return "Dinov2Model" if scaled else "ViTModel"


def _beit_class(original: Original) -> str:
    names = original.tensors
    needed = ("blocks.0.attn.relative_position_bias_table", "blocks.0.attn.q_bias", "blocks.0.gamma_1")
    lacking = [name for name in needed if name not in names]
    if lacking:
        raise ConversionError(f"a BEiT without {lacking[0]} cannot be written for transformers; use --to timm")
    return "BeitModel"


def config_of(original: Original) -> dict[str, Any]:
    """The content of ``config.json``."""
    kind, model = class_of(original), original.skeleton
    stored = str(original.tensors["patch_embed.proj.weight"].dtype).removeprefix("torch.")
    config: dict[str, Any] = {"architectures": [kind], "model_type": _MODEL_TYPES[kind], "torch_dtype": stored}
    config |= {"image_size": _square(original), "patch_size": original.metadata.patch_size, "num_channels": 3}
    block = model.layers[0].blocks[0] if kind == "SwinModel" else model.blocks[0]
    config |= {"hidden_act": _activation(block), "qkv_bias": _has_qkv_bias(original), "layer_norm_eps": block.norm1.eps}
    if kind == "SwinModel":
        return config | _swin_config(original, model)
    config |= {
        "hidden_size": model.embed_dim,
        "num_hidden_layers": len(model.blocks),
        "num_attention_heads": block.attn.num_heads,
    }
    hidden = block.mlp.fc1.out_features
    if kind in ("ViTModel", "BeitModel"):
        config["intermediate_size"] = hidden
    else:
        config |= _dinov2_config(original, block, model.embed_dim, hidden)
    if kind == "Dinov2WithRegistersModel":
        config["num_register_tokens"] = original.tensors["reg_token"].shape[1]
    if kind == "BeitModel":
        config |= {
            "use_absolute_position_embeddings": "pos_embed" in original.tensors,
            "use_relative_position_bias": True,
            "use_mean_pooling": "norm.weight" not in original.tensors,
            "layer_scale_init_value": 0.1,
            "drop_path_rate": 0.0,
        }
    return config


_MODEL_TYPES = {
    "ViTModel": "vit",
    "Dinov2Model": "dinov2",
    "Dinov2WithRegistersModel": "dinov2_with_registers",
    "BeitModel": "beit",
    "SwinModel": "swin",
}


def _square(original: Original) -> int | list[int]:
    height, width = original.metadata.img_size
    return height if height == width else [height, width]


def _has_qkv_bias(original: Original) -> bool:
    return any(name.endswith(("attn.qkv.bias", "attn.q_bias")) for name in original.tensors)


def _activation(block: Any) -> str:
    act = block.mlp.act
    if isinstance(act, nn.SiLU):
        return "gelu"  # of the class without gate, which is not used then
    if not isinstance(act, nn.GELU) or act.approximate != "none":
        raise ConversionError(f"activation {act} cannot be written for transformers; use --to timm or onnx")
    return "gelu"


def _dinov2_config(original: Original, block: Any, width: int, hidden: int) -> dict[str, Any]:
    """MLP or SwiGLU, and how wide."""
    gated = block.mlp.fc2.in_features * 2 == hidden
    ratio = 4 if gated else hidden / width
    expected = 2 * ((int(int(width * ratio) * 2 / 3) + 7) // 8 * 8) if gated else int(width * ratio)
    if expected != hidden or ratio != int(ratio):
        raise ConversionError(f"transformers' DINOv2 has no hidden layer of {hidden} for width {width}; use --to timm")
    config = {"mlp_ratio": int(ratio), "use_swiglu_ffn": gated, "layerscale_value": 1.0, "drop_path_rate": 0.0}
    return config if "reg_token" in original.tensors else {**config, "use_mask_token": False}


def _swin_config(original: Original, model: Any) -> dict[str, Any]:
    block = model.layers[0].blocks[0]
    return {
        "embed_dim": model.patch_embed.proj.out_channels,
        "depths": [len(stage.blocks) for stage in model.layers],
        "num_heads": [stage.blocks[0].attn.num_heads for stage in model.layers],
        "window_size": original.window_size(),
        "mlp_ratio": block.mlp.fc1.out_features / block.mlp.fc1.in_features,
        "drop_path_rate": 0.0,
    }


def preprocessor_of(original: Original) -> dict[str, Any]:
    """The content of ``preprocessor_config.json``."""
    height, width = original.metadata.img_size
    return {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "size": {"height": height, "width": width},
        "resample": BICUBIC,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(original.metadata.mean),
        "image_std": list(original.metadata.std),
    }
