"""``mst convert CHECKPOINT --to TARGET -o OUT``."""

import argparse
from collections.abc import Sequence

from mst_transfer.export import TARGETS


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="mst convert",
        description="Write a backbone for another library. The result is loaded again by its target and compared with "
        "the original at two sizes; it is kept only if the features agree.",
    )
    parser.add_argument(
        "checkpoint", help="file of any project, zoo://NAME, timm://NAME, hf://ORG/REPO[/FILE][@REVISION]"
    )
    parser.add_argument("--to", required=True, choices=TARGETS, help="hf: timm and transformers; mst: our own")
    parser.add_argument("-o", "--out", required=True, help="the file to write; for hf a folder")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")
    parser.add_argument("--role", choices=("teacher", "student"), help="which network, where the file holds both")
    parser.add_argument("--arch", help="timm model name, where it cannot be inferred, e.g. vit_small_patch16_224")
    parser.add_argument(
        "--arch-options", nargs="+", default=[], metavar="KEY=VALUE", help="for timm.create_model, e.g. num_heads=12"
    )
    parser.add_argument(
        "--mean", type=float, nargs=3, help="RGB mean of the input, 0 to 1, where the file does not say"
    )
    parser.add_argument("--std", type=float, nargs=3, help="RGB standard deviation, likewise")
    parser.add_argument("--dtype", choices=("float32", "float16", "bfloat16"), help="precision of the weights written")
    parser.add_argument("--size", type=int, nargs=2, metavar=("H", "W"), help="of the images of an onnx graph")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs; the exit status."""
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.to != "onnx" and args.size:
        parser.error("--size is for --to onnx")
    from mst_transfer.configs.keys import parse_cfg_options
    from mst_transfer.export.convert import check_out, convert, target_named
    from mst_transfer.export.source_model import read_source_model

    arch_kwargs = parse_cfg_options(args.arch_options, "--arch-options")
    target = target_named(args.to)
    check_out(args.out, target, args.overwrite)
    original = read_source_model(
        args.checkpoint, role=args.role, arch=args.arch, arch_kwargs=arch_kwargs, mean=args.mean, std=args.std
    )
    options = dict(size=tuple(args.size)) if args.size else {}
    agreement = convert(original, target, args.out, dtype=args.dtype, overwrite=args.overwrite, **options)
    print("\n".join(agreement.lines()))
    for remark in (*original.remarks, *agreement.remarks):
        print(f"note: {remark}")
    print(f"wrote {args.out}\n\n{target.usage(original, args.out)}")
    return 0
