"""Deliberate one-line breaks of the packages, and which tests notice each.

    python tests/breaks                    every break of breaks.json
    python tests/breaks --area masking     those of one area; --only 3 17: these
    python tests/breaks --check            only: does each text that a break replaces still stand there exactly once?

Breaks are made in a copy of the checkout, never in the checkout, and their tests run there; first all of them unbroken.
The exit status is 1 if a break is not noticed or cannot be made, or if a test fails without it.
"""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
SECONDS = 300  # a break that makes its tests hang so long has not been noticed


def why_impossible(item: dict) -> str:
    """Empty for a break that can be made."""
    path = ROOT / item["file"]
    count = path.read_text().count(item["old"]) if path.is_file() else 0
    why = f"{item['old']!r} stands there {count} times, not once" if count != 1 else "nothing is changed"
    return f"{item['number']} {item['file']}: {why}" if count != 1 or item["old"] == item["new"] else ""


def copy_checkout(target: Path) -> None:
    """All files that git tracks, and new ones that it does not ignore."""
    words = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0"):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)


def run_tests(copy: Path, tests: list[str], seconds: float) -> str:
    """``passed``, the first test that fails, or what else comes of it. In a fork: libraries are imported once."""
    log, end = copy.with_name("output"), time.monotonic() + seconds
    if (child := os.fork()) == 0:
        import pytest

        os.setsid()
        handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(handle, 1), os.dup2(handle, 2), os.chdir(copy)
        sys.path[0] = os.environ["PYTHONPATH"] = str(copy)
        sys.dont_write_bytecode = bool(os.environ.setdefault("PYTHONDONTWRITEBYTECODE", "1"))
        words = ["-x", "-q", "--disable-warnings", "-p", "no:cacheprovider"]
        status = pytest.main([*words, f"--basetemp={copy.with_name('files')}", *tests])
        sys.stdout.flush()
        os._exit(int(status))
    while not (ended := os.waitpid(child, os.WNOHANG))[0] and time.monotonic() < end:
        time.sleep(0.02)
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # what hangs, and what tests have left behind
    if not ended[0]:
        os.waitpid(child, 0)
        return f"still running after {seconds} s"
    failed = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", log.read_text(errors="replace"), re.MULTILINE)
    code = os.waitstatus_to_exitcode(ended[1])
    return "passed" if code == 0 else failed[1] if failed and code == 1 else f"pytest ended with {code}"


def run(breaks: list[dict], folder: Path) -> int:
    """Makes the breaks one by one and prints a line for each; how many are not noticed."""
    import hypothesis, mmengine.runner, timm, torch  # noqa: E401, F401, I001 - once, for all forks

    copy, missed, start = folder / "checkout", 0, time.monotonic()
    copy_checkout(copy)
    whole = run_tests(copy, list(dict.fromkeys(t for item in breaks for t in item["tests"])), SECONDS * len(breaks))
    if whole != "passed":
        sys.exit(f"{(folder / 'output').read_text()[-5000:]}\nwithout any break: {whole}")
    for item in breaks:
        path, begun = copy / item["file"], time.monotonic()
        text = path.read_text()
        path.write_text(text.replace(item["old"], item["new"]))
        found = run_tests(copy, item["tests"], SECONDS)
        path.write_text(text)
        missed += "::" not in found
        verdict, took = f"caught by {found}" if "::" in found else f"NOT CAUGHT: {found}", time.monotonic() - begun
        print(f"{item['number']:>3} {item['area']:<13} {item['file']:<48} {took:4.0f} s  {verdict}", flush=True)
    print(f"{len(breaks) - missed} of {len(breaks)} caught in {time.monotonic() - start:.0f} s")
    return missed


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--area"), parser.add_argument("--only", type=int, nargs="+")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    breaks = json.loads(Path(__file__).with_name("breaks.json").read_text())
    breaks = [dict(item, number=number) for number, item in enumerate(breaks, 1)]
    breaks = [i for i in breaks if options.area in (None, i["area"]) and i["number"] in (options.only or [i["number"]])]
    if faults := list(filter(None, map(why_impossible, breaks))) or ["no such break"] * (not breaks):
        sys.exit("\n".join(faults))
    if options.check:
        print(f"all {len(breaks)} breaks can be made")
        return 0
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("MST_TEST_DATA", str(ROOT.parent / "shared" / "data"))
    with tempfile.TemporaryDirectory(prefix="mst_breaks_", ignore_cleanup_errors=True) as folder:
        return int(run(breaks, Path(folder)) > 0)


if __name__ == "__main__":
    sys.exit(main())
