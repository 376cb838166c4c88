"""Deliberate one-line breaks of the packages, and which tests notice each.

    python tests/breaks                    every break of breaks.json
    python tests/breaks --area masking     those of one area; --only 3 17: these
    python tests/breaks --check            only: does each text that a break replaces still stand there exactly once?

The breaks are made in a copy of the checkout, which itself is never touched, and their tests are run there; first all
of them unbroken. The exit status is 1 if a break is not noticed or cannot be made, or if a test fails without it.
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
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
SECONDS = 300  # a break that makes its tests hang so long has not been noticed


def faults(breaks: list[dict]) -> list[str]:
    """Breaks that cannot be made, in words."""
    texts = {item["file"]: (ROOT / item["file"]) for item in breaks}
    counts = [texts[i["file"]].is_file() and texts[i["file"]].read_text().count(i["old"]) for i in breaks]
    found = [
        f"{item['number']} {item['file']}: {item['old']!r} stands there {int(count)} times, not once"
        for item, count in zip(breaks, counts, strict=True)
        if count != 1
    ]
    return found + [f"{item['number']}: nothing is changed" for item in breaks if item["old"] == item["new"]]


def copy_checkout(target: Path) -> None:
    """All files that git tracks, and new ones that it does not ignore."""
    words = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)


def run_tests(copy: Path, tests: list[str], broken: bool) -> tuple[str, str]:
    """Runs tests in the copy: ``passed``, the name of the first that failed, or what else happened; and the output."""
    places = [str(copy), os.environ.get("PYTHONPATH", "")]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, places)), "OMP_NUM_THREADS": "1"}
    env.setdefault("MST_TEST_DATA", str(ROOT.parent / "shared" / "data"))
    env |= {"PYTHONDONTWRITEBYTECODE": "1"} if broken else {}  # what is compiled belongs to the whole files
    words = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", f"--basetemp={copy}_files", *tests]
    process = subprocess.Popen(
        words, cwd=copy, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    try:
        output, _ = process.communicate(timeout=SECONDS if broken else None)
    except subprocess.TimeoutExpired:
        return f"hung for {SECONDS} s", ""
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if process.returncode == 0:
        return "passed", output
    failed = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", output, re.MULTILINE)
    return failed[1] if failed and process.returncode == 1 else f"pytest: status {process.returncode}", output


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--area")
    parser.add_argument("--only", type=int, nargs="+")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    breaks = json.loads(Path(__file__).with_name("breaks.json").read_text())
    breaks = [dict(item, number=number) for number, item in enumerate(breaks, 1)]
    if options.check:
        print("\n".join(faults(breaks)) or f"all {len(breaks)} can be made: {dict(Counter(i['area'] for i in breaks))}")
        return bool(faults(breaks))
    breaks = [i for i in breaks if options.area in (None, i["area"]) and i["number"] in (options.only or [i["number"]])]
    if faults(breaks) or not breaks:
        sys.exit("\n".join(faults(breaks)) or "no such break")
    with tempfile.TemporaryDirectory(prefix="mst_breaks_") as folder:
        copy, missed, start = Path(folder) / "checkout", 0, time.monotonic()
        copy_checkout(copy)
        whole, output = run_tests(copy, list(dict.fromkeys(test for item in breaks for test in item["tests"])), False)
        if whole != "passed":
            sys.exit(f"{output[-3000:]}\nwithout any break: {whole}")
        for item in breaks:
            path, begun = copy / item["file"], time.monotonic()
            text, status = path.read_text(), path.stat()
            path.write_text(text.replace(item["old"], item["new"]))
            found, _ = run_tests(copy, item["tests"], True)
            path.write_text(text)
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
            missed += "::" not in found
            verdict = f"caught by {found}" if "::" in found else f"NOT CAUGHT ({found})"
            took = time.monotonic() - begun
            print(f"{item['number']:>3} {item['area']:<14} {item['file']:<52} {took:4.0f} s  {verdict}", flush=True)
    print(f"{len(breaks) - missed} of {len(breaks)} caught in {time.monotonic() - start:.0f} s")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
