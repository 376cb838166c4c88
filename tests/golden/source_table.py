"""The table "source x (loads, features, detection step, segmentation step)" of docs/checkpoints.md.

    python tests/golden/source_table.py [--markdown OUT] [--only NAME …]

For every example (a small checkpoint with a source's real names and shapes, and the features that the source's own code
gives): is it recognised and loaded completely into the adapter, do the features agree, and does Mask R-CNN of mmdet and
a head of mmseg take a training step from it? Exits with 1 if a cell says no.
"""

import argparse
import importlib
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from torch import Tensor, nn

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(folder) for folder in (TESTS.parent, TESTS, TESTS / "golden", TESTS / "mst_transfer")]

from golden_files import show_table  # noqa: E402
from golden_swin import PROJECTS, golden_swin  # noqa: E402
from live_sources import LIVE_EXAMPLES, MISSING  # noqa: E402
from narrow_nets import narrow, random_samples  # noqa: E402
from source_examples import golden_examples  # noqa: E402

from mst_transfer.checkpoint import BackboneMetadata, LoadReport, load_backbone, save_backbone  # noqa: E402
from mst_transfer.models.backbones import TimmSwin, TimmViT  # noqa: E402
from pretrain.backbones import build_backbone  # noqa: E402

TOLERANCE = 1e-5
SIDE = 64
OPTIMIZER = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=1e-3, weight_decay=0.05),
    constructor="mst_transfer.LayerDecayOptimWrapperConstructor",
    paramwise_cfg=dict(layer_decay_rate=0.8),
)


@dataclass(frozen=True)
class Case:
    """One example as an adapter takes it."""

    name: str
    backbone: dict[str, Any]  # the adapter's config, without checkpoint
    write: Callable[[Path], Path]  # writes the checkpoint into a folder
    difference: Callable[[nn.Module], float]  # of the adapter's features from the source's, the largest
    widths: tuple[int, ...]  # channels of the adapter's maps


def vit_case(example: Any) -> Case:
    """Of a ViT."""
    options = {k: v for k, v in example.arch_kwargs.items() if k != "num_classes"}
    last = options.get("depth", 12) - 1
    out_norm = "none" if isinstance(example.build().norm, nn.Identity) else "last"  # none: it stands in the classifier
    backbone = dict(type="mst_transfer.TimmViT", arch=example.arch, out_indices=(last,), out_norm=out_norm, **options)
    if example.option:
        backbone["pos_embed_interpolation"] = example.option

    def difference(module: nn.Module) -> float:
        grids = ((module(image)[-1], tokens) for image, tokens in example.views)  # [1, D, h, w], [1, N, D]
        return max((grid.flatten(2).transpose(1, 2) - tokens).abs().max().item() for grid, tokens in grids)

    return Case(example.name, backbone, example.write, difference, (int(options["embed_dim"]),))


def swin_case(project: str) -> Case:
    """Of a Swin."""
    golden = golden_swin(project)
    role = next(iter(golden.maps))
    options = dict(role=role, out_norm="last", shift_single_windows=False, **golden.arch_kwargs)
    backbone = dict(type="mst_transfer.TimmSwin", arch=golden.arch, **options)

    def difference(module: nn.Module) -> float:
        maps, theirs = module(golden.image), golden.maps[role]
        names = [*(f"stage_{number}" for number in range(len(maps) - 1)), "features"]
        return max((ours - theirs[name]).abs().max().item() for ours, name in zip(maps, names, strict=True))

    widths = tuple(golden.maps[role][f"stage_{number}"].shape[1] for number in range(4))
    return Case(f"swin_{project}", backbone, lambda folder: golden.save(folder / "swin.pth"), difference, widths)


def own_case(arch: str) -> Case:
    """What ``pretrain`` writes."""
    swin = arch.startswith("swin")
    kwargs: dict[str, Any] = dict(img_size=64, patch_size=16, embed_dim=24, depth=2, num_heads=2)
    if swin:
        kwargs = dict(img_size=224, embed_dim=8, depths=(1, 1, 2, 1), num_heads=(1, 1, 2, 2))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build_backbone(arch, with_mask_token=False, **kwargs).eval()
    side = kwargs["img_size"]  # at other sizes timm pads the shifted windows elsewhere than mmdet
    image = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        tokens = network(image, patch_tokens=True).patch_tokens.permute(0, 3, 1, 2)  # [1, D, h, w]
    width = network.vit.patch_embed.proj.out_channels
    metadata = BackboneMetadata(
        arch, kwargs, network.patch_size, (side, side), width, (0.5,) * 3, (0.25,) * 3, role="teacher"
    )

    def write(folder: Path) -> Path:
        save_backbone(folder / "teacher.safetensors", network.vit.state_dict(), metadata)
        return folder / "teacher.safetensors"

    options: dict[str, Any] = dict(type="mst_transfer.TimmViT", out_indices=(1,))
    widths: tuple[int, ...] = (24,)
    if swin:
        options, widths = dict(type="mst_transfer.TimmSwin", shift_single_windows=False), (8, 16, 32, 64)
    backbone = dict(arch=arch, out_norm="last", **options, **kwargs)
    return Case(f"mst_{arch}", backbone, write, lambda m: (m(image)[-1] - tokens).abs().max().item(), widths)


OWN = ("vit_tiny_patch16_224", "swin_tiny_patch4_window7_224")


def makers() -> dict[str, Callable[[], Case]]:
    """What makes each case, by name; those of transformers are left out where it is not installed."""
    found: dict[str, Callable[[], Case]] = {f"mst_{arch}": partial(own_case, arch) for arch in OWN}
    found |= {example.name: partial(vit_case, example) for example in golden_examples()}
    found |= {name: lambda make=make: vit_case(make()) for name, make in LIVE_EXAMPLES.items() if name not in MISSING}
    if MISSING:
        print(f"{len(MISSING)} examples are left out: transformers is not installed", file=sys.stderr)
    return found | {f"swin_{project}": partial(swin_case, project) for project in PROJECTS}


def load(case: Case, folder: Path) -> tuple[nn.Module, LoadReport, dict[str, Any]]:
    """The adapter with the example's weights, the report, and its config."""
    backbone = case.backbone | {"checkpoint": str(case.write(folder))}
    kind = TimmSwin if backbone["type"].endswith("TimmSwin") else TimmViT
    module = kind(**{k: v for k, v in backbone.items() if k != "type"})
    module.init_weights()  # refuses what does not cover the backbone
    report = load_backbone(
        module.vit,
        backbone["checkpoint"],
        role=backbone.get("role", "teacher"),
        may_miss=[n for n in module.vit.state_dict() if n.startswith("norm") and n[4:5].isdigit()],
        unused=module._unused,
    )
    return module.eval(), report, backbone


def detector_config(backbone: dict[str, Any], widths: tuple[int, ...]) -> dict[str, Any]:
    """A small Mask R-CNN: ViTDet's pyramid on one map, FPN on four."""
    model = Config.fromfile("det_configs/_base_/maskrcnn_swin_tiny.py").model
    narrow([model.rpn_head, model.roi_head], {})  # 16 channels
    model.backbone, model.neck = backbone, dict(type="FPN", in_channels=list(widths), out_channels=16, num_outs=5)
    if len(widths) == 1:
        pyramid = dict(in_channels=widths[0], out_channels=16, patch_size=int(backbone.get("patch_size", 16)))
        model.neck = dict(type="mst_transfer.SimpleFeaturePyramid", **pyramid)
    return model


def segmentor_config(backbone: dict[str, Any], widths: tuple[int, ...]) -> dict[str, Any]:
    """A fully convolutional head on the last map."""
    return dict(
        type="EncoderDecoder",
        data_preprocessor=dict(type="SegDataPreProcessor", size=(SIDE, SIDE), mean=[0.0] * 3, std=[255.0] * 3),
        backbone=backbone,
        decode_head=dict(
            type="FCNHead",
            in_channels=widths[-1],
            in_index=len(widths) - 1,
            channels=8,
            num_convs=1,
            num_classes=3,
            norm_cfg=dict(type="BN"),
            loss_decode=dict(type="CrossEntropyLoss"),
        ),
        test_cfg=dict(mode="whole"),
    )


def step(library: str, config: dict[str, Any]) -> str:
    """``yes`` if a training step gives finite losses and moves every trained tensor of the backbone."""
    init_default_scope(library)
    importlib.import_module(f"{library}.models")
    torch.manual_seed(0)
    model = importlib.import_module(f"{library}.registry").MODELS.build(config)
    model.init_weights()
    model.train()
    optimizer = build_optim_wrapper(model, OPTIMIZER)
    before = {name: p.detach().clone() for name, p in model.backbone.named_parameters() if p.requires_grad}
    samples = random_samples(library, (SIDE, SIDE), 3, number=1 if library == "mmdet" else 2)
    images = [torch.randint(0, 256, (3, SIDE, SIDE), dtype=torch.uint8) for _ in samples]
    losses: dict[str, Tensor] = model.train_step(dict(inputs=images, data_samples=samples), optimizer)
    if not all(torch.isfinite(loss).all() for loss in losses.values()):
        return f"losses {losses}"
    still = [name for name, p in model.backbone.named_parameters() if name in before and torch.equal(p, before[name])]
    return f"unmoved: {still[:3]}" if still else "yes"


def measure(case: Case) -> tuple[list[str], bool]:
    """One row, and whether every cell says yes. Swin's adapter has norms of its stages beside the checkpoint's own."""
    with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng():
        module, report, backbone = load(case, Path(folder))
        with torch.no_grad():
            difference = case.difference(module)
        steps = [
            step("mmdet", detector_config(backbone, case.widths)),
            step("mmseg", segmentor_config(backbone, case.widths)),
        ]
    loaded, fresh = len(report.loaded) + len(report.resized), len(report.missing)
    total = len(module.vit.state_dict()) - fresh
    share = f"{loaded} of {total}" + (f" (+{fresh} fresh norms)" if fresh else "")
    sound = loaded == total and difference <= TOLERANCE and steps == ["yes", "yes"]
    return [report.scheme or "MST", case.name, share, f"{difference:.0e}", *steps], sound


HEADER = ["source", "example", "tensors loaded", "largest difference", "detection step", "segmentation step"]


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description="Which projects' checkpoints load, and what they then compute.")
    parser.add_argument("--markdown", type=Path, help="write the table here too")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="examples to take (default: all)")
    args = parser.parse_args()
    MMLogger.get_instance("source_table", log_level="ERROR")  # loads report to the current logger
    results = [measure(make()) for name, make in makers().items() if not args.only or name in args.only]
    show_table([HEADER, *(row for row, _ in results)], args.markdown)
    return 0 if results and all(sound for _, sound in results) else 1


if __name__ == "__main__":
    sys.exit(main())
