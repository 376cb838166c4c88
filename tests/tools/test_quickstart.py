"""The quickstart's command line; .ci/run executes all of it with the small budget."""

import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "tools" / "quickstart.sh"


def quickstart(*arguments):
    return subprocess.run(["bash", str(SCRIPT), *arguments], capture_output=True, text=True, timeout=600)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seed", "one"], "--seed one: it must be a whole number, 0 or more"),
        (["--seed"], "--seed needs a value"),
        (["--budget", "huge"], "--budget huge: it must be full or small"),
        (["--starts", "mst imagenet"], "unknown start 'imagenet'; it must be mst, random or both"),
        (["--starts", " "], "--starts is empty"),
        (["--out", ""], "--out must not be empty"),
        (["--photographs", "/nowhere"], "--photographs /nowhere: there is no photos/ in it"),
        (["--sed", "1"], "unknown option '--sed'"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_happens(arguments, message):
    ended = quickstart(*arguments)
    assert ended.returncode == 2
    assert message in ended.stderr and "usage: bash tools/quickstart.sh" in ended.stderr


def test_help():
    ended = quickstart("--help")
    assert ended.returncode == 0 and "--budget full|small" in ended.stdout and not ended.stderr


def test_strict_mode_and_syntax():
    assert "\nset -euo pipefail\n" in SCRIPT.read_text()
    subprocess.run(["bash", "-n", str(SCRIPT)], check=True)
