"""The study on small photographs: random weights and mask × decoder, from DINO to MST, at equal epochs and crops.

    python -m benchmarks.study run --data FOLDER [--out work_dirs/study] [--seeds 0 1] [--methods dino mst]
    python -m benchmarks.study cost --data FOLDER
    python -m benchmarks.study table [--out work_dirs/study]

FOLDER holds ``photos/{train,val}/<class>/`` and ``camvid/`` in Cityscapes' layout. ``run`` goes through the methods
one seed after another and can be stopped at any time: started again, it resumes a pre-training and skips what is
measured. ``cost`` times the step of each method in turn, on an idle core. ``table`` prints what is there.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = ROOT / "pretrain" / "configs" / "study"
METHODS = {
    "random": "random weights",
    "dino": "DINO (no mask, no decoder)",
    "decoder_only": "no mask + decoder",
    "random_mask_only": "random mask, no decoder",
    "random_mask": "random mask + decoder",
    "attention_mask_only": "attention mask, no decoder",
    "mst": "MST (attention mask + decoder)",
}
MEASURES = {
    "knn": "k-NN",
    "linear": "linear",
    "camvid_frozen": "mIoU, frozen",
    "camvid_tuned": "mIoU, fine-tuned",
}
ARCH = ("vit_tiny_patch16_224", "img_size=96", "patch_size=16", "embed_dim=128", "depth=6", "num_heads=4")
SEG_CONFIG = "seg_configs/mst_linear_camvid.py"


def commands(method: str, seed: int, data: Path, folder: Path) -> dict[str, list[str]]:
    """What to call, in this order; each writes the file that :func:`result_file` names."""
    python, checkpoint = sys.executable, str(folder / "teacher.safetensors")
    steps: dict[str, list[str]] = {}
    evaluated, arch = [checkpoint], []
    if method == "random":
        evaluated, arch, backbone = ["random"], ["--arch", ARCH[0], "--arch-options", *ARCH[1:]], "None"
    else:
        config = str(CONFIGS / f"{method}.py")
        steps["pretrain"] = [
            *(python, "tools/pretrain.py", config, "--seed", str(seed)),
            *("--work-dir", str(folder), "--resume"),
        ]
        backbone = checkpoint
    common = ["--resize", "squash", "--seed", str(seed), *arch]
    for name, extra in {"knn": ["--k", "20"], "linear": ["--cache"]}.items():
        out = ["--out", str(result_file(folder, name))]
        steps[name] = [python, f"tools/eval_{name}.py", *evaluated, str(data / "photos"), *common, *extra, *out]
    for name, frozen in {"camvid_frozen": 6, "camvid_tuned": -1}.items():
        options = [f"model.backbone.checkpoint={backbone}", f"model.backbone.frozen_stages={frozen}"]
        steps[name] = [
            *(python, "tools/train.py", SEG_CONFIG, "--seed", str(seed)),
            *("--work-dir", str(folder / name), "--cfg-options", *options),
        ]
    return steps


def result_file(folder: Path, step: str) -> Path:
    """Where a step leaves its result; its presence means that the step is done."""
    return folder / step / "results.json" if step.startswith("camvid") else folder / f"{step}.json"


def read_result(folder: Path, step: str) -> float | None:
    """The figure of a step in per cent, or None if it has not been measured."""
    path = result_file(folder, step)
    if not path.is_file():
        return None
    content = json.loads(path.read_text())
    if step.startswith("camvid"):
        metrics = content.get("metrics", {})
        return next((float(value) for name, value in metrics.items() if name.endswith("mIoU")), None)
    top1 = content["top1"]
    return float(top1["20"] if isinstance(top1, dict) else top1)


def run(args: argparse.Namespace) -> int:
    """Every step that is not done yet; the exit status of the first that fails."""
    environment = {**os.environ, "MST_DATA_ROOT": str(args.data.resolve())}
    plan = [(seed, method) for seed in args.seeds for method in args.methods]
    for number, (seed, method) in enumerate(plan, 1):
        folder = (args.out / method / f"seed_{seed}").resolve()
        folder.mkdir(parents=True, exist_ok=True)
        for step, command in commands(method, seed, args.data.resolve(), folder).items():
            if args.steps and step not in args.steps:
                continue
            if result_file(folder, step).is_file():
                continue
            print(f"[{number}/{len(plan)}] {method}, seed {seed}: {step}", flush=True)
            start = time.monotonic()
            with open(folder / f"{step}.log", "a") as log:
                status = subprocess.run(command, cwd=ROOT, env=environment, stdout=log, stderr=log).returncode
            if status:
                print(f"{step} ended with status {status}: see {folder / step}.log", file=sys.stderr)
                return status
            if step == "pretrain":
                seconds = round(time.monotonic() - start, 1)
                result_file(folder, step).write_text(json.dumps({"seconds": seconds, "command": command}))
    return table(args)


def cost(args: argparse.Namespace) -> int:
    """Images a second of each method's step on synthetic crops, the methods in turn, medians of several rounds."""
    from mmengine.config import Config

    from pretrain.registry import MODELS
    from pretrain.run.optim import PretrainOptimWrapperConstructor

    torch.set_num_threads(1)
    os.environ["MST_DATA_ROOT"] = str(args.data)
    runs = {}
    for method in METHODS:
        if method == "random":
            continue
        cfg = Config.fromfile(CONFIGS / f"{method}.py")
        torch.manual_seed(0)
        model = MODELS.build(cfg.model).train()
        optim = PretrainOptimWrapperConstructor(cfg.optim_wrapper)(model)
        optim.set_hyperparameters(1e-4, 0.04)
        batch = cfg.train_dataloader.batch_size
        sizes = ((2, 96), (cfg.train_dataloader.dataset.num_local_crops, 48))
        crops = [torch.randint(0, 256, (batch, n, 3, s, s), dtype=torch.uint8) for n, s in sizes]
        runs[method] = (model, optim, crops, batch)
    seconds: dict[str, list[float]] = {method: [] for method in runs}
    for round_ in range(args.rounds + 1):
        for method, (model, optim, crops, batch) in runs.items():
            start = time.process_time()
            optim.zero_grad()
            with optim.autocast():
                loss = model(*crops, torch.arange(batch), teacher_temp=0.02)["loss"]
            optim.backward(loss)
            optim.clip_gradients()
            optim.step()
            model.dino_loss.update_center()
            model.update_teacher(0.99)
            if round_:  # the first warms up
                seconds[method].append((time.process_time() - start) / batch)
    medians = {method: statistics.median(values) for method, values in seconds.items()}
    result = {
        method: {"images_per_cpu_second": round(1 / value, 1), "relative": round(value / medians["dino"], 2)}
        for method, value in medians.items()
    }
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "cost.json").write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))
    return 0


def collect(out: Path) -> dict[str, dict[str, dict[int, float]]]:
    """method → measure → seed → per cent, of all that is there."""
    found: dict[str, dict[str, dict[int, float]]] = {}
    for method in METHODS:
        for folder in sorted((out / method).glob("seed_*")):
            seed = int(folder.name.removeprefix("seed_"))
            for step in MEASURES:
                value = read_result(folder, step)
                if value is not None:
                    found.setdefault(method, {}).setdefault(step, {})[seed] = value
    return found


def cell(values: dict[int, float], reference: dict[int, float] | None) -> str:
    """Mean over the seeds, each seed's value, and the mean paired difference to the reference."""
    if not values:
        return "-"
    text = f"{statistics.mean(values.values()):.1f}"
    if len(values) > 1:
        text += f" ({' / '.join(f'{values[seed]:.1f}' for seed in sorted(values))})"
    shared = sorted(set(values) & set(reference or {}))
    if reference is not None and values is not reference and shared:
        text += f" {statistics.mean(values[s] - reference[s] for s in shared):+.1f}"
    return text


def table(args: argparse.Namespace) -> int:
    """Markdown: mean (each seed) and, signed, the mean paired difference to DINO."""
    found = collect(args.out)
    cost_file = args.out / "cost.json"
    costs = json.loads(cost_file.read_text()) if cost_file.is_file() else {}
    print("| method | " + " | ".join(MEASURES.values()) + " | cost of a step |")
    print("| --- |" + " --- |" * (len(MEASURES) + 1))
    for method, title in METHODS.items():
        if method not in found:
            continue
        reference = found.get("dino", {})
        cells = [cell(found[method].get(step, {}), reference.get(step)) for step in MEASURES]
        price = f"{costs[method]['relative']:.2f} x DINO" if method in costs else "-"
        print(f"| {title} | " + " | ".join(cells) + f" | {price} |")
    return 0


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.study", description=__doc__.split("\n")[0])
    parser.add_argument("action", choices=("run", "cost", "table"))
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--out", type=Path, default=Path("work_dirs/study"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", choices=tuple(METHODS), default=list(METHODS))
    parser.add_argument("--steps", nargs="+", choices=("pretrain", *MEASURES), help="only these")
    parser.add_argument("--rounds", type=int, default=15, help="of cost")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run; the exit status."""
    args = build_parser().parse_args(argv)
    return {"run": run, "cost": cost, "table": table}[args.action](args)


if __name__ == "__main__":
    sys.exit(main())
