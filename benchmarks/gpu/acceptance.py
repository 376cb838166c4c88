"""The acceptance run for one GPU: stages by priority, each in a process of its own with a time limit.

    python -m benchmarks gpu --json OUT.json                          all that OUT.json does not hold yet
    python -m benchmarks gpu --dino CHECKOUT --json OUT.json          with a checkout of facebookresearch/dino as peer
    python -m benchmarks gpu --stages steps waits --json OUT.json     these, once more if OUT.json holds them
    python -m benchmarks gpu --device cpu --tiny --json OUT.json      a rehearsal without a GPU

Every figure is written to the file as soon as it is known. A stage that fails, or hangs past its limit, does not stop
those after it; time that a stage leaves is given to them.
"""

import argparse
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.measure import Row, as_entry, from_entry, machine, text_table
from mst_transfer.files.atomic_files import write_text_atomically

STAGES = {  # name → module and function, share of the time, what it does
    "equality": ("equality:run", 35, "CPU against the device: losses, gradients, masks, operators, steps left out"),
    "waits": ("whole_runs:waits", 20, "where a step waits for the device"),
    "steps": ("steps:run", 90, "a training step against facebookresearch/dino: time and memory"),
    "pretraining": ("whole_runs:pretraining", 40, "a real pre-training, killed and resumed"),
    "transfer": ("transfer:run", 35, "Swin-T Mask R-CNN and SETR-PUP against mmdet's and mmseg's: time and memory"),
    "torchrun": ("whole_runs:torchrun", 20, "a pre-training under torchrun: NCCL, on the CPU gloo"),
}
BEGUN, DONE, FAILED, TIMED_OUT = "begun", "done", "failed", "timed out"
ROOT = Path(__file__).resolve().parents[2]
GRACE = 5.0  # seconds between SIGTERM and SIGKILL: torchrun ends its workers in them
TAIL = 3000  # characters of a failed stage's output that are kept


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks gpu",
        description="\n".join(f"{name:12} {what}" for name, (_, _, what) in STAGES.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--stages", nargs="+", metavar="NAME", choices=STAGES, help="which (default: all not yet done)")
    parser.add_argument("--dino", type=Path, metavar="CHECKOUT", help="a checkout of facebookresearch/dino")
    parser.add_argument(
        "--json", type=Path, metavar="OUT", required=True, help="results; what it holds already is kept"
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="tiny sizes: does it run at all?")
    parser.add_argument("--minutes", type=float, default=4.0, help="of all stages together (default 4)")
    parser.add_argument("--in-process", type=Path, help=argparse.SUPPRESS)  # where the rows of the one stage go
    return parser


class Report:
    """The results file: written whole, under another name first, at each change.

    Args:
        path: of the JSON file.
        setting: device and sizes; results of others are refused.

    Raises:
        ValueError: the file is of another setting, or none of ours.
    """

    def __init__(self, path: Path, setting: Mapping[str, Any]) -> None:
        self.path, self.content = path, {**setting, "machine": machine(), "stages": {}}
        if path.is_file():
            held = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(held, dict) or {name: held.get(name) for name in setting} != dict(setting):
                raise ValueError(f"{path} holds no results of {dict(setting)}: give another --json")
            self.content["stages"] = held.get("stages", {})

    def done(self, name: str) -> bool:
        """Whether a stage has been gone through."""
        return bool(self.content["stages"].get(name, {}).get("status") == DONE)

    def put(self, name: str, **result: Any) -> None:
        """Replaces the results of a stage."""
        self.content["stages"][name] = result
        write_text_atomically(self.path, json.dumps(self.content, indent=2, ensure_ascii=False) + "\n")

    def rows(self, name: str) -> list[Row]:
        """The figures of a stage."""
        return [from_entry(entry) for entry in self.content["stages"][name]["rows"]]


def run_apart(
    command: Sequence[str], rows: Path, limit: float, environment: Mapping[str, str], show: Callable[..., None]
) -> tuple[str, str]:
    """Runs a stage in a session of its own; whether it was done, and the end of its output.

    Args:
        command: writes a line of JSON to ``rows`` for each figure.
        rows: file of figures.
        limit: seconds; a stage that takes longer is ended, with all that it has started.
        environment: of the process.
        show: called with all figures so far as ``rows`` whenever there are more.
    """
    log, end, seen = rows.with_suffix(".log"), time.monotonic() + limit, 0
    with open(log, "wb") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=output, stderr=output, env=environment, start_new_session=True
        )
    try:
        while True:
            status = process.poll()
            lines = rows.read_text(encoding="utf-8").splitlines(keepends=True) if rows.is_file() else []
            whole = [line for line in lines if line.endswith("\n")]
            if len(whole) > seen:
                show(rows=[json.loads(line) for line in whole])
                seen = len(whole)
            if status is not None or time.monotonic() > end:
                break
            time.sleep(0.1)
    finally:
        end_session(process)
    tail = log.read_text(encoding="utf-8", errors="replace")[-TAIL:]
    return TIMED_OUT if status is None else FAILED if status else DONE, tail


def end_session(process: subprocess.Popen) -> None:
    """Ends a process and all that it has started and left."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        end = time.monotonic() + GRACE
        try:
            os.killpg(process.pid, number)
            while time.monotonic() < end:
                process.poll()
                os.killpg(process.pid, 0)  # raises once all have ended
                time.sleep(0.05)
        except ProcessLookupError:
            break


def run_here(name: str, args: argparse.Namespace) -> None:
    """One stage in this process; figures are appended to ``args.in_process``, and shown."""
    from benchmarks.gpu.device import Task

    module, function = STAGES[name][0].split(":")
    run: Callable[[Task], Iterator[Row]] = getattr(importlib.import_module(f"benchmarks.gpu.{module}"), function)
    for row in run(Task(args.device, args.tiny, args.dino)):
        with open(args.in_process, "a", encoding="utf-8") as handle:
            handle.write(json.dumps(as_entry(row)) + "\n")


def stage_command(name: str, args: argparse.Namespace, rows: Path) -> list[str]:
    """What goes through one stage in a process of its own."""
    command = [sys.executable, "-m", "benchmarks", "gpu", "--stages", name, "--device", args.device]
    command += ["--json", str(args.json), "--in-process", str(rows)] + ["--tiny"] * args.tiny
    return command + (["--dino", str(args.dino.resolve())] if args.dino else [])


def run_stages(names: Sequence[str], args: argparse.Namespace, report: Report) -> None:
    """The stages one after the other, each up to its share of the time and what those before it have left."""
    environment = {**os.environ, **({"CUDA_VISIBLE_DEVICES": ""} if args.device == "cpu" else {})}
    until, seconds_a_share = time.monotonic(), 60 * args.minutes / sum(STAGES[name][1] for name in names)
    for name in names:
        begun, until = time.monotonic(), until + STAGES[name][1] * seconds_a_share
        print(f"{name}: {STAGES[name][2]} …", file=sys.stderr, flush=True)
        report.put(name, status=BEGUN, rows=[])
        with tempfile.TemporaryDirectory() as folder:
            rows = Path(folder) / "rows.jsonl"
            show = partial(report.put, name, status=BEGUN)
            status, output = run_apart(stage_command(name, args, rows), rows, until - begun, environment, show)
        seconds, found = round(time.monotonic() - begun, 1), report.content["stages"][name]["rows"]
        report.put(name, status=status, seconds=seconds, rows=found, output="" if status == DONE else output)
        print(text_table(report.rows(name)) if found else "no figures", flush=True)
        print(f"{name}: {status}, {seconds:.0f} s\n" + ("" if status == DONE else output), flush=True)


def main(argv: Sequence[str]) -> int:
    """Run; 1 if a stage was not gone through or a goal was missed, 2 if the command can't be carried out."""
    args = build_parser().parse_args(argv)
    if args.in_process:
        run_here(args.stages[0], args)
        return 0
    import torch

    try:
        if args.device == "cuda" and not torch.cuda.is_available():
            raise ValueError("torch sees no CUDA device; --device cpu --tiny rehearses without")
        report = Report(args.json, {"device": args.device, "tiny": args.tiny})
    except ValueError as error:
        print(f"benchmarks gpu: {error}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that a stage ends with its frame
    if args.device == "cuda":
        report.content["machine"]["gpu"] = f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}"
    run_stages(args.stages or [name for name in STAGES if not report.done(name)], args, report)
    left = [f"{name} {result['status']}" for name, result in report.content["stages"].items() if not report.done(name)]
    verdicts = [row.verdict for name in report.content["stages"] for row in report.rows(name)]
    print(", ".join(f"{key} {value}" for key, value in report.content["machine"].items()))
    summary = f"{len(verdicts)} figures; goals: {verdicts.count('met')} met, {verdicts.count('missed')} missed"
    print("; ".join([summary, *left]))
    return 1 if left or "missed" in verdicts else 0
