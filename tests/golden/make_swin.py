"""Writes Swin checkpoints as other projects' code writes them, with the features that their code computes.

    python tests/golden/make_swin.py --swin-transformer CHECKOUT --transformer-ssl CHECKOUT --simmim CHECKOUT …

Checkouts: https://github.com/microsoft/Swin-Transformer at f82860b, https://github.com/SwinTransformer/Transformer-SSL
(MoBY) at 4510de1, https://github.com/microsoft/SimMIM at d3e29bc, https://github.com/open-mmlab/mmpretrain at ee7f2e8
(needs its requirements). ``transformers`` is taken as installed. Without some of the options only the other files are
written.

Every file ``swin_<project>.safetensors`` holds, as ``checkpoint/NAME``, the tensors of a whole checkpoint under the
names that the project's own code gives them, without the largest of heads and decoders; ``image`` [2, 3, 64, 64]; for
every role that the checkpoint holds ``ROLE/stage_0`` … ``ROLE/stage_3``, the maps behind the blocks of each stage, and
``ROLE/features``, the last one normalised, all [B, channels, rows, columns]. Its metadata: ``source`` (a name of
``mst_transfer.checkpoint.sources``), ``arch`` and ``arch_kwargs`` for timm, ``made_with``.
"""

import importlib
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import torch
from golden_files import command_line
from golden_files import write as write_golden
from source_examples import saved
from torch import Tensor, nn

ARCH = "swin_tiny_patch4_window7_224"
SHAPE = dict(embed_dim=4, depths=(2, 2, 1, 1), num_heads=(1, 2, 2, 4))
SIZE = 64  # px: maps of 16, 8, 4 and 2 tokens a side
WINDOWS = (4, 4, 4, 2)  # the last map is smaller than the window, so its window is
SMALLEST = 2  # side of the last map: where the code wants no window to be larger than a map
LARGEST = 20_000  # values; larger tensors, all of heads and decoders, are left out


def package(name: str, folder: Path) -> str:
    """Makes a folder's modules importable, without what its ``__init__`` imports."""
    module = types.ModuleType(name)
    module.__path__ = [str(folder)]
    sys.modules[name] = module
    return name


def disturb(model: nn.Module, seed: int) -> nn.Module:
    """Weights as after training: no norm is 1, no bias is 0."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    model.eval()  # which in mmpretrain returns nothing
    return model


def observe(stages: Iterator[nn.Module], to_map: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    """A dictionary that fills with the outputs of the stages' last blocks."""
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> Callable:
        def hook(module: nn.Module, inputs: tuple, output: Tensor | tuple) -> None:
            seen[name] = to_map(output[0] if isinstance(output, tuple) else output)

        return hook

    for number, stage in enumerate(stages):
        stage.blocks[-1].register_forward_hook(keep(f"stage_{number}"))
    return seen


def grid(tokens: Tensor) -> Tensor:
    """[B, N, C] → [B, C, rows, columns] of a square."""
    side = int(tokens.shape[1] ** 0.5)
    return tokens.transpose(1, 2).unflatten(2, (side, side)).contiguous()


def write(
    source: str,
    project: str,
    checkpoint: dict[str, Tensor],
    maps: dict[str, dict[str, Tensor]],
    windows: int | tuple[int, ...] = WINDOWS,
) -> None:
    """Writes one golden file; ``maps`` by role."""
    kept = {name: tensor for name, tensor in checkpoint.items() if tensor.numel() <= LARGEST}
    tensors = {f"checkpoint/{name}": tensor for name, tensor in kept.items()} | {"image": make_image()}
    for role, seen in maps.items():
        tensors |= {f"{role}/{name}": tensor for name, tensor in seen.items()}
    write_golden(
        f"swin_{project}.safetensors",
        tensors,
        source=source,
        arch=ARCH,
        arch_kwargs={**SHAPE, "window_size": windows, "img_size": SIZE},
        made_with={"project": project, "torch": torch.__version__},
    )


def make_image() -> Tensor:
    return torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))


OFFICIAL = "timm Swin, Swin, MoBY, SimMIM, MST"


def official(checkout: Path) -> None:
    swin = importlib.import_module(f"{package('swin_reference', checkout / 'models')}.swin_transformer")
    model = disturb(swin.SwinTransformer(img_size=SIZE, window_size=4, num_classes=5, **SHAPE), seed=1)
    write(OFFICIAL, "official", with_prefix(model, "model."), {"teacher": run_official(model)})


def moby(checkout: Path) -> None:
    name = package("moby_reference", checkout / "models")
    for module in ("diffdist", "diffdist.functional"):  # gathers keys over processes, not needed here
        sys.modules[module] = mock.MagicMock()
    swin, moby = (importlib.import_module(f"{name}.{part}") for part in ("swin_transformer", "moby"))
    encoders = [swin.SwinTransformer(img_size=SIZE, window_size=4, num_classes=0, **SHAPE) for _ in range(2)]
    cfg = mock.MagicMock()
    cfg.DATA.TRAINING_IMAGES = cfg.DATA.BATCH_SIZE = cfg.TRAIN.EPOCHS = cfg.TRAIN.START_EPOCH = 1
    with mock.patch.object(torch.distributed, "get_world_size", lambda: 1):
        model = disturb(moby.MoBY(cfg, *encoders, contrast_num_negative=4), seed=2)
    maps = {"teacher": run_official(model.encoder_k), "student": run_official(model.encoder)}
    write(OFFICIAL, "moby", with_prefix(model, "model."), maps)


def simmim(checkout: Path) -> None:
    simmim = importlib.import_module(f"{package('simmim_reference', checkout / 'models')}.simmim")
    options = dict(img_size=SIZE, window_size=4, num_classes=0, **SHAPE)
    model = disturb(simmim.SimMIM(simmim.SwinTransformerForSimMIM(**options), encoder_stride=32), seed=3)
    maps = observe(model.encoder.layers, grid)
    maps["features"] = model.encoder(make_image(), torch.zeros(2, 16, 16)).contiguous()  # nothing masked
    write(OFFICIAL, "simmim", with_prefix(model, "model."), {"teacher": maps})


def mmpretrain(checkout: Path) -> None:
    sys.path.insert(0, str(checkout))
    multimodal = "mmpretrain.models.multimodal"  # needs an older transformers
    sys.modules[multimodal] = types.ModuleType(multimodal)
    from mmpretrain.models.backbones import SwinTransformer

    arch = dict(embed_dims=SHAPE["embed_dim"], depths=SHAPE["depths"], num_heads=SHAPE["num_heads"])
    model = disturb(SwinTransformer(arch, img_size=SIZE, window_size=SMALLEST, drop_path_rate=0.0), seed=4)
    maps = observe(model.stages, grid)
    maps["features"] = model(make_image())[0].contiguous()
    checkpoint = with_prefix(model, "state_dict.backbone.")
    write("mmdet, mmseg, mmpretrain Swin", "mmpretrain", checkpoint, {"teacher": maps}, SMALLEST)


def transformers() -> None:
    from transformers import SwinConfig, SwinForMaskedImageModeling

    config = SwinConfig(image_size=SIZE, window_size=SMALLEST, drop_path_rate=0.0, encoder_stride=32, **SHAPE)
    model = disturb(SwinForMaskedImageModeling(config), seed=5)
    maps = observe(model.swin.encoder.layers, grid)
    maps["features"] = grid(model.swin(make_image()).last_hidden_state)
    write("transformers Swin", "transformers", saved(model), {"teacher": maps}, SMALLEST)


def run_official(model: nn.Module) -> dict[str, Tensor]:
    """The maps of a Swin of its authors' code, which MoBY has copied."""
    maps = observe(model.layers, grid)
    model.norm.register_forward_hook(lambda _, inputs, output: maps.update(features=grid(output)))
    model(make_image())
    return maps


def with_prefix(model: nn.Module, prefix: str) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in model.state_dict().items()}


def main() -> None:
    makers = {"swin_transformer": official, "transformer_ssl": moby, "simmim": simmim, "mmpretrain": mmpretrain}
    projects = ("microsoft/Swin-Transformer", "SwinTransformer/Transformer-SSL", "microsoft/SimMIM")
    parser = command_line(__doc__, *projects, "open-mmlab/mmpretrain", required=False)
    parser.add_argument("--transformers", action="store_true", help="write the file of the installed transformers")
    args = vars(parser.parse_args())
    with torch.no_grad():
        for name, make in makers.items():
            torch.manual_seed(0)
            if args[name] is not None:
                make(args[name])
        if args["transformers"]:
            torch.manual_seed(0)
            transformers()


if __name__ == "__main__":
    main()
