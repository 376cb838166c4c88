"""ONNX: a graph that onnxruntime and others run, for any batch size and, for plain ViTs, any image size.

Needs the packages of ``pip install 'mst-transfer[export]'``.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mst_transfer.export.convert import Target
from mst_transfer.export.graph_models import AnySizeViT, Normalised, OneSize
from mst_transfer.export.source_model import ConversionError, SourceModel
from mst_transfer.export.verify import Agreement, Size, imported, largest_difference, size_in_words, two_sizes
from mst_transfer.files.checksums import sha256_of

OPSET = 18  # the first whose Resize smooths
LARGEST_FILE = 2**31 - 2**24  # bytes; protobuf's limit, less the graph
BATCHES = (1, 3)


def require_packages() -> None:
    """Raises ConversionError with the command that installs what is missing."""
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if imported(name)[0] is None]
    if missing:
        raise ConversionError(
            f"{', '.join(missing)} not installed, needed for ONNX: pip install 'mst-transfer[export]'"
        )


def takes_any_size(original: SourceModel, size: Size | None) -> bool:
    """Whether the graph takes images of any size: plain ViTs do, unless one size is asked for."""
    return size is None and original.is_vit()


def outputs_of(original: SourceModel) -> tuple[str, str]:
    """Names of the two outputs."""
    return ("pooled", "map") if original.is_swin() else ("cls_token", "patch_tokens")


def write(original: SourceModel, path: Path, size: Size | None = None, with_normalisation: bool = False) -> None:
    """Exports the graph and writes what is known of it into its properties.

    Args:
        size: height and width in pixels of a graph that takes no other; None: any, else the checkpoint's own.
        with_normalisation: whether the graph takes bytes (0 to 255) and normalises them itself.
    """
    require_packages()
    size_in_bytes = sum(tensor.numel() * 4 for tensor in original.tensors.values())
    if size_in_bytes > LARGEST_FILE:
        raise ConversionError(f"the graph would have {size_in_bytes / 2**30:.1f} GiB; one file of ONNX holds 2 at most")
    model, shape = _module(original, size)
    image = torch.zeros(2, 3, *shape)
    if with_normalisation:
        model, image = Normalised(model, original.metadata.mean, original.metadata.std), image.to(torch.uint8)
    sizes: dict[int, Any] = {0: torch.export.Dim("batch", min=1, max=2**16)}
    if takes_any_size(original, size):
        patch = original.metadata.patch_size
        sizes |= {
            2: patch * torch.export.Dim("rows", min=1, max=2**12),
            3: patch * torch.export.Dim("columns", min=1, max=2**12),
        }
    program = torch.onnx.export(
        model.eval(),
        (image,),
        dynamo=True,
        dynamic_shapes=(sizes,),
        input_names=["image"],
        output_names=list(outputs_of(original)),
        opset_version=OPSET,
        verbose=False,
    )
    if program is None:
        raise ConversionError("torch.onnx.export returned no program")
    program.save(str(path), external_data=False)
    _write_properties(original, path, size, with_normalisation)


def _module(original: SourceModel, size: Size | None) -> tuple[nn.Module, Size]:
    """What is exported, and the size of the example image."""
    patch = original.metadata.patch_size
    if takes_any_size(original, size):
        return AnySizeViT(original.model(), original.metadata.pos_embed_interpolation), (6 * patch, 5 * patch)
    size = size or original.metadata.img_size
    if size[0] % patch or size[1] % patch or min(size) < patch:
        raise ConversionError(f"size={size_in_words(size)}: both sides must be multiples of the patch, {patch}")
    return OneSize(original.model(size)), size


def _write_properties(original: SourceModel, path: Path, size: Size | None, with_normalisation: bool) -> None:
    """Has the graph say what is known of it; numbers as text, with commas."""
    import onnx

    metadata, any_size = original.metadata, takes_any_size(original, size)
    source = {"source_sha256": sha256_of(original.path)} if original.path.is_file() else {}
    properties = source | {
        "arch": metadata.arch,
        "arch_kwargs": metadata.to_strings()["arch_kwargs"],
        "patch_size": str(metadata.patch_size),
        "img_size": size_in_words(metadata.img_size),
        "input_size": "any multiple of the patch" if any_size else size_in_words(size or metadata.img_size),
        "input": "RGB, uint8, 0 to 255" if with_normalisation else "RGB, (value / 255 - mean) / std",
        "mean": ",".join(map(str, metadata.mean)),
        "std": ",".join(map(str, metadata.std)),
        "pos_embed_interpolation": metadata.pos_embed_interpolation,
        "source": original.path.name,
    }
    model = onnx.load(str(path))
    onnx.helper.set_model_props(model, properties)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def verify(original: SourceModel, path: Path, size: Size | None = None, with_normalisation: bool = False) -> Agreement:
    """Runs the graph with onnxruntime at two sizes and two batch sizes, or at its only size with two batch sizes."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    any_size = takes_any_size(original, size)
    sizes = two_sizes(original) if any_size else (size or original.metadata.img_size,)
    differences: dict[str, float] = {}
    for shape in sizes:
        model = OneSize(original.model(shape))
        for batch in BATCHES:
            given, image = _images(original, shape, batch, with_normalisation)
            found = session.run(None, {"image": given.numpy()})
            what = f"{size_in_words(shape)}, batch {batch}"
            with torch.no_grad():
                pairs = zip(outputs_of(original), model(image), found, strict=True)
            differences[what] = max(
                largest_difference(f"{name} at {what}", ours, torch.from_numpy(theirs)) for name, ours, theirs in pairs
            )
    if any_size:
        remark = f"sides of images must be multiples of {original.metadata.patch_size}"
    else:
        only = size_in_words(sizes[0])
        remark = f"the graph takes images of {only} only: two batch sizes were compared, not two image sizes"
    return Agreement(f"onnxruntime {onnxruntime.__version__}", differences, (remark,))


def _images(original: SourceModel, size: Size, batch: int, with_normalisation: bool) -> tuple[Tensor, Tensor]:
    """What the graph is given, and the same for the original."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (batch, 3, *size), dtype=torch.uint8, generator=generator)
    normalised = Normalised(nn.Identity(), original.metadata.mean, original.metadata.std)(pixels)
    return (pixels if with_normalisation else normalised), normalised


def usage(original: SourceModel, path: Path) -> str:
    """Python that runs the graph."""
    return f'onnxruntime.InferenceSession("{path}").run(None, {{"image": image}})  # {", ".join(outputs_of(original))}'


TARGET = Target("onnx", (".onnx",), write, verify, usage)
