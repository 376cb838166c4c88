"""transformers: a folder for ``AutoModel.from_pretrained``, written without transformers.

Names are those of the published files, which every release of transformers reads; models of release 5 call their own
tensors otherwise. Which class a backbone needs follows from what it has: :mod:`mst_transfer.export.huggingface_config`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from mst_transfer.export.huggingface_config import class_of, config_of, preprocessor_of
from mst_transfer.export.names import Table, rename, split_qkv
from mst_transfer.export.original import Original
from mst_transfer.export.resampling import as_timm, plain_bicubic, resampling_remark
from mst_transfer.export.target import Options, Target
from mst_transfer.export.verify import Agreement, compare_at, features, read_back, two_sizes

WEIGHTS = "model.safetensors"
_BLOCK, _LAYER = r"blocks\.(\d+)\.", r"encoder.layer.\1."
_STEM: Table = (
    (r"cls_token", "embeddings.cls_token"),
    (r"pos_embed", "embeddings.position_embeddings"),
    (r"patch_embed\.proj\.(.+)", r"embeddings.patch_embeddings.projection.\1"),
    (r"norm\.(.+)", r"layernorm.\1"),
    (_BLOCK + r"attn\.(query|key|value)\.(.+)", _LAYER + r"attention.attention.\2.\3"),
    (_BLOCK + r"attn\.proj\.(.+)", _LAYER + r"attention.output.dense.\2"),
)
VIT_NAMES: Table = (
    *_STEM,
    (_BLOCK + r"norm1\.(.+)", _LAYER + r"layernorm_before.\2"),
    (_BLOCK + r"norm2\.(.+)", _LAYER + r"layernorm_after.\2"),
    (_BLOCK + r"mlp\.fc1\.(.+)", _LAYER + r"intermediate.dense.\2"),
    (_BLOCK + r"mlp\.fc2\.(.+)", _LAYER + r"output.dense.\2"),
)
DINOV2_NAMES: Table = (
    *_STEM,
    (r"mask_token", "embeddings.mask_token"),
    (r"reg_token", "embeddings.register_tokens"),
    (_BLOCK + r"norm([12])\.(.+)", _LAYER + r"norm\2.\3"),
    (_BLOCK + r"ls([12])\.gamma", _LAYER + r"layer_scale\2.lambda1"),
    (_BLOCK + r"mlp\.(fc[12]|weights_in|weights_out)\.(.+)", _LAYER + r"mlp.\2.\3"),
)
BEIT_NAMES: Table = (
    *VIT_NAMES,
    (r"fc_norm\.(.+)", r"pooler.layernorm.\1"),
    (_BLOCK + r"gamma_([12])", _LAYER + r"lambda_\2"),
    (
        _BLOCK + r"attn\.relative_position_bias_table",
        _LAYER + "attention.attention.relative_position_bias.relative_position_bias_table",
    ),
)
_SWIN_BLOCK, _SWIN_LAYER = r"layers\.(\d+)\.blocks\.(\d+)\.", r"encoder.layers.\1.blocks.\2."
SWIN_NAMES: Table = (
    (r"patch_embed\.proj\.(.+)", r"embeddings.patch_embeddings.projection.\1"),
    (r"patch_embed\.norm\.(.+)", r"embeddings.norm.\1"),
    (r"norm\.(.+)", r"layernorm.\1"),
    (_SWIN_BLOCK + r"norm1\.(.+)", _SWIN_LAYER + r"layernorm_before.\3"),
    (_SWIN_BLOCK + r"norm2\.(.+)", _SWIN_LAYER + r"layernorm_after.\3"),
    (_SWIN_BLOCK + r"attn\.(query|key|value|relative_position_bias_table)(.*)", _SWIN_LAYER + r"attention.self.\3\4"),
    (_SWIN_BLOCK + r"attn\.proj\.(.+)", _SWIN_LAYER + r"attention.output.dense.\3"),
    (_SWIN_BLOCK + r"mlp\.fc1\.(.+)", _SWIN_LAYER + r"intermediate.dense.\3"),
    (_SWIN_BLOCK + r"mlp\.fc2\.(.+)", _SWIN_LAYER + r"output.dense.\3"),
    (r"encoder\.(.+)", r"encoder.\1"),  # patch merging, renamed before
)
_TABLES = {
    "ViTModel": VIT_NAMES,
    "Dinov2Model": DINOV2_NAMES,
    "Dinov2WithRegistersModel": DINOV2_NAMES,
    "BeitModel": BEIT_NAMES,
    "SwinModel": SWIN_NAMES,
}


def names_of(original: Original) -> dict[str, Tensor]:
    """The tensors under the names of transformers' published files.

    Raises:
        ConversionError: transformers has no class that computes the same.
    """
    kind = class_of(original)
    tensors = split_qkv(original.tensors, "query", "key", "value")
    if kind == "Dinov2WithRegistersModel":  # a position for the class token: none, timm has it in the token itself
        pos_embed = tensors["pos_embed"]
        tensors["pos_embed"] = torch.cat([torch.zeros_like(pos_embed[:, :1]), pos_embed], dim=1)
        tensors["mask_token"] = torch.zeros_like(pos_embed[0, :1])
    gated = bool(config_of(original).get("use_swiglu_ffn"))
    prepared = {_prepare(name, kind, gated): tensor for name, tensor in tensors.items()}
    return rename(prepared, _TABLES[kind], f"transformers' {kind}")


def _prepare(name: str, kind: str, gated: bool) -> str:
    """What patterns alone cannot say: the stage of patch merging, SwiGLU's names, BEiT's two biases."""
    if kind == "SwinModel" and ".downsample." in name:  # timm merges before a stage, transformers after the one before
        _, stage, rest = name.split(".", 2)
        return f"encoder.layers.{int(stage) - 1}.{rest}"
    if kind == "BeitModel" and name.endswith(("attn.q_bias", "attn.v_bias")):
        return name.replace("q_bias", "query.bias").replace("v_bias", "value.bias")
    if gated:
        return name.replace(".mlp.fc1.", ".mlp.weights_in.").replace(".mlp.fc2.", ".mlp.weights_out.")
    return name


def write(original: Original, path: Path, options: Options) -> None:
    """Writes ``config.json``, ``model.safetensors`` and ``preprocessor_config.json``."""
    tensors = {name: tensor.contiguous() for name, tensor in names_of(original).items()}
    path.mkdir()
    save_file(tensors, path / WEIGHTS, metadata={"format": "pt"})
    for file, content in (
        ("config.json", config_of(original)),
        ("preprocessor_config.json", preprocessor_of(original)),
    ):
        (path / file).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def verify(original: Original, path: Path, options: Options) -> Agreement:
    """Loads the folder with transformers if it can be imported, else with our reader."""
    loaded = read_back(original, path / WEIGHTS)
    kind = class_of(original)
    resample = as_timm if kind == "Dinov2WithRegistersModel" else plain_bicubic
    sizes = two_sizes(original) if kind != "BeitModel" else (original.metadata.img_size,)
    remarks = list(resampling_remark(original, two_sizes(original)[1], resample, "transformers"))
    if kind == "ViTModel":
        remarks.append(
            "use last_hidden_state; ViTModel's pooler_output comes from a random layer, which this backbone does not "
            "have: pass add_pooling_layer=False"
        )
    if kind == "SwinModel":
        remarks.append(
            "transformers' Swin does not shift a stage any more once it has seen an image that the stage's window "
            "covers: give one model images of one size, or load it anew"
        )
    if kind == "ViTModel":
        remarks.append("pass interpolate_pos_encoding=True to the model for images of other sizes")

    def expected(size: tuple[int, int], image: Tensor) -> Tensor:
        return features(original.model(size, resample), image)

    try:
        import transformers
    except Exception as error:  # not installed, or broken by the versions of what it needs
        remarks.insert(0, f"transformers cannot be imported here ({error}), so its own class was not asked")
        differences = compare_at(sizes, expected, lambda size, x: features(loaded.model(size, resample), x))
        return Agreement("mst_transfer's reader of this layout", differences, tuple(remarks))

    def found(size: tuple[int, int], image: Tensor) -> Tensor:
        model = load(path, kind)  # anew: a Swin remembers the sizes that it has seen
        interpolate = {"interpolate_pos_encoding": True} if kind == "ViTModel" else {}
        with torch.no_grad():
            result: Tensor = model(image, **interpolate).last_hidden_state
        return result if kind != "SwinModel" else result.unflatten(1, _last_grid(original, size))

    return Agreement(
        f"transformers {transformers.__version__}: {kind}", compare_at(sizes, expected, found), tuple(remarks)
    )


def load(path: Path, kind: str) -> Any:
    """transformers' model of a folder, in float32; no tensor of the backbone may be missing or left over.

    Raises:
        ConversionError: transformers would leave a tensor random, or does not use one.
    """
    from transformers import AutoModel
    from transformers.utils import logging

    from mst_transfer.export.errors import ConversionError

    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        model, info = AutoModel.from_pretrained(path, output_loading_info=True, local_files_only=True)
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()
    missing = [name for name in info["missing_keys"] if not name.startswith("pooler.")]
    if missing or info["unexpected_keys"] or type(model).__name__ != kind:
        raise ConversionError(
            f"transformers reads the folder as {type(model).__name__}; missing tensors: {missing}, unused: "
            f"{list(info['unexpected_keys'])}"
        )
    return model.float().eval()


def _last_grid(original: Original, size: tuple[int, int]) -> tuple[int, int]:
    stride = int(original.skeleton.feature_info[-1]["reduction"])
    return -(-size[0] // stride), -(-size[1] // stride)


def usage(original: Original, path: Path) -> str:
    """Python that loads the folder."""
    return f'transformers.AutoModel.from_pretrained("{path}")'


TARGET = Target("hf", (), "a folder for transformers.AutoModel.from_pretrained", write, verify, usage)
