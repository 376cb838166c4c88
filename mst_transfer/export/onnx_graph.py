"""ONNX: a graph that onnxruntime and others run, for any batch size and, for plain ViTs, any image size.

Needs the packages of ``pip install 'mst-transfer[export]'``.
"""

from __future__ import annotations

import importlib
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mst_transfer.export.convert import Options, Target
from mst_transfer.export.graph_models import AnySizeViT, Map, Normalised, Tokens
from mst_transfer.export.source_model import ConversionError, SourceModel
from mst_transfer.export.verify import Agreement, features, largest_difference, size_in_words, two_sizes
from mst_transfer.files.checksums import sha256_of

OPSET = 18  # the first whose Resize smooths
LARGEST_FILE = 2**31 - 2**24  # bytes; protobuf's limit, less the graph
BATCHES = (1, 3)


def require_packages() -> None:
    """Are the optional packages there?

    Raises:
        ConversionError: names the command that installs them.
    """
    missing = []
    for name in ("onnx", "onnxscript", "onnxruntime"):
        try:
            importlib.import_module(name)
        except ImportError:
            missing.append(name)
    if missing:
        raise ConversionError(
            f"{', '.join(missing)} not installed, needed for ONNX: pip install 'mst-transfer[export]'"
        )


def takes_any_size(original: SourceModel, options: Options) -> bool:
    """Whether the graph takes images of any size: plain ViTs do, unless one size is asked for."""
    return options.size is None and original.is_vit()


def outputs_of(original: SourceModel) -> tuple[str, str]:
    """Names of the two outputs."""
    return ("pooled", "map") if original.is_swin() else ("cls_token", "patch_tokens")


def write(original: SourceModel, path: Path, options: Options) -> None:
    """Exports the graph and writes what is known of it into its properties."""
    require_packages()
    size_in_bytes = sum(tensor.numel() * 4 for tensor in original.tensors.values())
    if size_in_bytes > LARGEST_FILE:
        raise ConversionError(f"the graph would have {size_in_bytes / 2**30:.1f} GiB; one file of ONNX holds 2 at most")
    model, shape = _module(original, options)
    image = torch.zeros(2, 3, *shape)
    if options.with_normalisation:
        model, image = Normalised(model, original.metadata.mean, original.metadata.std), image.to(torch.uint8)
    sizes: dict[int, Any] = {0: torch.export.Dim("batch", min=1, max=2**16)}
    if takes_any_size(original, options):
        patch = original.metadata.patch_size
        sizes |= {
            2: patch * torch.export.Dim("rows", min=1, max=2**12),
            3: patch * torch.export.Dim("columns", min=1, max=2**12),
        }
    with _quiet():
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
    _write_properties(original, path, options)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's notes on its own insides."""
    logger = logging.getLogger("onnxscript")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _module(original: SourceModel, options: Options) -> tuple[nn.Module, tuple[int, int]]:
    """What is exported, and the size of the example image."""
    native = original.metadata.img_size
    if takes_any_size(original, options):
        patch = original.metadata.patch_size
        return AnySizeViT(original.model(), original.metadata.pos_embed_interpolation), (6 * patch, 5 * patch)
    size = options.size or native
    stride = original.metadata.patch_size
    if size[0] % stride or size[1] % stride or min(size) < stride:
        raise ConversionError(f"size={size_in_words(size)}: both sides must be multiples of the patch, {stride}")
    model = original.model(size)
    return (Map(model) if original.is_swin() else Tokens(model)), size


def properties_of(original: SourceModel, options: Options) -> dict[str, str]:
    """What the graph says about itself; numbers as text, with commas."""
    metadata = original.metadata
    size = (
        "any multiple of the patch"
        if takes_any_size(original, options)
        else size_in_words(options.size or metadata.img_size)
    )
    source = {"source_sha256": sha256_of(original.path)} if original.path.is_file() else {}
    return source | {
        "arch": metadata.arch,
        "arch_kwargs": metadata.to_strings()["arch_kwargs"],
        "patch_size": str(metadata.patch_size),
        "img_size": size_in_words(metadata.img_size),
        "input_size": size,
        "input": "RGB, uint8, 0 to 255" if options.with_normalisation else "RGB, (value / 255 - mean) / std",
        "mean": ",".join(map(str, metadata.mean)),
        "std": ",".join(map(str, metadata.std)),
        "pos_embed_interpolation": metadata.pos_embed_interpolation,
        "source": original.path.name,
    }


def _write_properties(original: SourceModel, path: Path, options: Options) -> None:
    import onnx

    model = onnx.load(str(path))
    onnx.helper.set_model_props(model, properties_of(original, options))
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def verify(original: SourceModel, path: Path, options: Options) -> Agreement:
    """Runs the graph with onnxruntime at two sizes and two batch sizes, or at its only size with two batch sizes."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    any_size = takes_any_size(original, options)
    sizes = two_sizes(original) if any_size else (options.size or original.metadata.img_size,)
    differences: dict[str, float] = {}
    for size in sizes:
        model = original.model(size)
        for batch in BATCHES:
            given, image = _images(original, size, batch, options)
            found = session.run(None, {"image": given.numpy()})
            what = f"{size_in_words(size)}, batch {batch}"
            pairs = zip(outputs_of(original), _expected(original, model, image), found, strict=True)
            largest = [
                largest_difference(f"{name} at {what}", ours, torch.from_numpy(theirs)) for name, ours, theirs in pairs
            ]
            differences[what] = max(largest)
    if any_size:
        remark = f"sides of images must be multiples of {original.metadata.patch_size}"
    else:
        only = size_in_words(sizes[0])
        remark = f"the graph takes images of {only} only: two batch sizes were compared, not two image sizes"
    return Agreement(f"onnxruntime {onnxruntime.__version__}", differences, (remark,))


def _images(original: SourceModel, size: tuple[int, int], batch: int, options: Options) -> tuple[Tensor, Tensor]:
    """What the graph is given, and the same for the original."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (batch, 3, *size), dtype=torch.uint8, generator=generator)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (original.metadata.mean, original.metadata.std))
    normalised = (pixels.float() / 255 - mean) / std
    return (pixels if options.with_normalisation else normalised), normalised


def _expected(original: SourceModel, model: Any, image: Tensor) -> tuple[Tensor, Tensor]:
    found = features(model, image)
    if original.is_swin():
        return found.mean((1, 2)), found.permute(0, 3, 1, 2)
    patch_tokens = found[:, model.num_prefix_tokens :]
    return (found[:, 0] if "cls_token" in original.tensors else patch_tokens.mean(1)), patch_tokens


def usage(original: SourceModel, path: Path) -> str:
    """Python that runs the graph."""
    return f'onnxruntime.InferenceSession("{path}").run(None, {{"image": image}})  # {", ".join(outputs_of(original))}'


TARGET = Target("onnx", (".onnx",), "a graph for onnxruntime; needs mst-transfer[export]", write, verify, usage)
