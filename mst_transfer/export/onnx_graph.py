"""ONNX: a graph that onnxruntime and others run, for images of one size and any batch size.

Needs the packages of ``pip install 'mst-transfer[export]'``.
"""

from pathlib import Path
from typing import Any

import torch
from timm.models.swin_transformer import SwinTransformer
from torch import Tensor, nn

from mst_transfer.export.convert import Target
from mst_transfer.export.source_model import ConversionError, SourceModel
from mst_transfer.export.verify import Agreement, Size, image_of, imported, largest_difference, size_in_words
from mst_transfer.files.checksums import sha256_of

OPSET = 18
LARGEST_FILE = 2**31 - 2**24  # bytes; protobuf's limit, less the graph


def require_packages() -> None:
    """Raises ConversionError with the command that installs what is missing."""
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if imported(name)[0] is None]
    if missing:
        raise ConversionError(
            f"{', '.join(missing)} not installed, needed for ONNX: pip install 'mst-transfer[export]'"
        )


class OneSize(nn.Module):
    """A timm model as a graph: tensors in, tensors out.

    A ViT gives its class token [B, D] (without one the mean of the patches) and its patch tokens [B, N, D], a Swin the
    mean over its map [B, C], and the map [B, C, h, w].
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model: Any = model
        for module in model.modules():  # the exporter cannot take fused attention with a bias apart
            if hasattr(module, "fused_attn"):
                setattr(module, "fused_attn", False)  # noqa: B010 - known to some of timm's modules only

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Image [B, 3, H, W] → see above."""
        features = self.model.forward_features(image)
        if isinstance(self.model, SwinTransformer):
            return features.mean((1, 2)), features.permute(0, 3, 1, 2)
        patches = features[:, self.model.num_prefix_tokens :]
        return (patches.mean(1) if getattr(self.model, "cls_token", None) is None else features[:, 0]), patches


def outputs_of(original: SourceModel) -> tuple[str, str]:
    """Names of the two outputs."""
    return ("pooled", "map") if original.is_swin() else ("cls_token", "patch_tokens")


def write(original: SourceModel, path: Path, size: Size | None = None) -> None:
    """Exports the graph and writes what is known of it into its properties.

    Args:
        size: height and width of its images in pixels; None: the checkpoint's own.
    """
    require_packages()
    size_in_bytes = sum(tensor.numel() * 4 for tensor in original.tensors.values())
    if size_in_bytes > LARGEST_FILE:
        raise ConversionError(f"the graph would have {size_in_bytes / 2**30:.1f} GiB; one file of ONNX holds 2 at most")
    size, patch = size or original.metadata.img_size, original.metadata.patch_size
    if size[0] % patch or size[1] % patch or min(size) < patch:
        raise ConversionError(f"size={size_in_words(size)}: both sides must be multiples of the patch, {patch}")
    program = torch.onnx.export(
        OneSize(original.model(size)).eval(),
        (image_of(size),),
        dynamo=True,
        dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=2**16)},),
        input_names=["image"],
        output_names=list(outputs_of(original)),
        opset_version=OPSET,
        verbose=False,
    )
    if program is None:
        raise ConversionError("torch.onnx.export returned no program")
    program.save(str(path), external_data=False)
    _write_properties(original, path, size)


def _write_properties(original: SourceModel, path: Path, size: Size) -> None:
    """Has the graph say what is known of it; numbers as text, with commas."""
    import onnx

    metadata = original.metadata
    source = {"source_sha256": sha256_of(original.path)} if original.path.is_file() else {}
    properties = source | {
        "arch": metadata.arch,
        "arch_kwargs": metadata.to_strings()["arch_kwargs"],
        "patch_size": str(metadata.patch_size),
        "input_size": size_in_words(size),
        "input": "RGB, (value / 255 - mean) / std",
        "mean": ",".join(map(str, metadata.mean)),
        "std": ",".join(map(str, metadata.std)),
        "source": original.path.name,
    }
    model = onnx.load(str(path))
    onnx.helper.set_model_props(model, properties)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def verify(original: SourceModel, path: Path, size: Size | None = None) -> Agreement:
    """Runs the graph with onnxruntime on batches of two sizes."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    size = size or original.metadata.img_size
    model, differences = OneSize(original.model(size)), {}
    for image in (image_of(size)[:1], image_of(size)):
        what = f"{size_in_words(size)}, batch {len(image)}"
        found = session.run(None, {"image": image.numpy()})
        with torch.no_grad():
            pairs = zip(outputs_of(original), model(image), found, strict=True)
        differences[what] = max(
            largest_difference(f"{name} at {what}", ours, torch.from_numpy(theirs)) for name, ours, theirs in pairs
        )
    remark = f"the graph takes images of {size_in_words(size)} only: two batch sizes were compared, not two image sizes"
    return Agreement(f"onnxruntime {onnxruntime.__version__}", differences, (remark,))


def usage(original: SourceModel, path: Path) -> str:
    """Python that runs the graph."""
    return f'onnxruntime.InferenceSession("{path}").run(None, {{"image": image}})  # {", ".join(outputs_of(original))}'


TARGET = Target("onnx", (".onnx",), write, verify, usage)
