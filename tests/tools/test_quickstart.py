"""The quickstart's command line; .ci/run executes all of it with the small budget."""

import subprocess
from pathlib import Path

import pytest
from untouched_folders import contents

SCRIPT = Path(__file__).resolve().parents[2] / "tools" / "quickstart.sh"


def quickstart(*arguments):
    return subprocess.run(["bash", str(SCRIPT), *arguments], capture_output=True, text=True, timeout=600)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seed", "one"], "--seed one: it must be a whole number, 0 or more"),
        (["--seed"], "--seed needs a value"),
        (["--budget", "huge"], "--budget huge: it must be full or small"),
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


@pytest.fixture
def used(tmp_path, root):
    """A copy of the script whose installation ends it with status 7, and a folder that holds runs of a user."""
    (tmp_path / "tools").mkdir()
    script = tmp_path / "tools" / "quickstart.sh"
    script.write_text((root / "tools" / "quickstart.sh").read_text())
    (tmp_path / "tools" / "install.sh").write_text("exit 7\n")
    out = tmp_path / "out put"
    for name in ("pretrain/teacher.safetensors", "card/jobs/a/run/iter_6.pth"):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text(name)

    def run(*options):
        return subprocess.run(
            ["bash", str(script), "--out", str(out), *options], capture_output=True, text=True, timeout=60
        )

    return out, run


def test_what_other_options_made_is_left_alone(used):
    out, run = used
    (out / "quickstart.txt").write_text("seed 0, budget full\n")
    before = contents(out)
    assert run().returncode == 7  # goes on
    for options in (["--seed", "1"], ["--budget", "small"]):
        ended = run(*options)
        assert ended.returncode == 2 and "was made with seed 0, budget full" in ended.stderr
    assert contents(out) == before
