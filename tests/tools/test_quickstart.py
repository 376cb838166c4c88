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


TRAINED = ("pretrain/teacher.safetensors", "det_mst/epoch_2.pth", "seg_random/iter_6.pth", "logs/a.txt", "report.html")


@pytest.fixture
def used(tmp_path, root):
    """A copy of the script whose installation ends it with status 7, and a folder that holds runs of a user."""
    (tmp_path / "tools").mkdir()
    script = tmp_path / "tools" / "quickstart.sh"
    script.write_text((root / "tools" / "quickstart.sh").read_text())
    (tmp_path / "tools" / "install.sh").write_text("exit 7\n")
    out = tmp_path / "out put"
    for name in TRAINED:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text(name)

    def run(*options):
        return subprocess.run(
            ["bash", str(script), "--out", str(out), *options], capture_output=True, text=True, timeout=60
        )

    return out, run


@pytest.mark.parametrize("options", [[], ["--seed", "1"], ["--resume"]])
def test_runs_that_are_there_are_left_alone(used, options):
    out, run = used
    before = contents(out)
    ended = run(*options)
    assert ended.returncode == 1 and contents(out) == before
    assert all(word in ended.stderr for word in ("pretrain", "det_mst", "seg_random", "--fresh", "--out"))


def test_fresh_keeps_the_earlier_runs_and_resume_goes_on_with_its_own(used):
    out, run = used
    before = contents(out)
    assert run("--fresh").returncode == 7
    assert contents(out / "earlier_1") == before and not (out / "pretrain").exists()
    assert run().returncode == 7  # the installation failed, and is tried again
    (out / "pretrain").mkdir()
    (out / "quickstart.txt").write_text("seed 0, budget full\n")
    assert run("--resume").returncode == 7 and run("--resume", "--seed", "1").returncode == 1
    assert run().returncode == 1 and run("--fresh").returncode == 7
    assert (out / "earlier_2" / "pretrain").is_dir() and contents(out / "earlier_1") == before
    assert run("--fresh", "--resume").returncode == 2
