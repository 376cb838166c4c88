"""The shell launchers: usage, refusals, one process and two on the CPU, Slurm's words."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from mst_transfer.cli.main import main
from mst_transfer.compat.mm_lines import MM_LINES, MM_NAMES

LAUNCHERS = {
    "dist_train.sh": 2,
    "dist_test.sh": 3,
    "pretrain.sh": 2,
    "slurm_train.sh": 3,
    "slurm_test.sh": 4,
    "slurm_pretrain.sh": 3,
}
on_cpu = pytest.mark.skipif(torch.cuda.is_available(), reason="about processes on the CPU; there is a GPU here")


def run(script: str, *words: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess:
    """Runs a script of tools/ from another folder."""
    root = Path(__file__).resolve().parents[2]
    return subprocess.run(
        ["bash", str(root / "tools" / script), *words],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.mark.parametrize("script", LAUNCHERS)
def test_wrong_arguments_get_a_usage_line(script: str, tmp_path: Path) -> None:
    for count in range(LAUNCHERS[script]):
        done = run(script, *["x"] * count, cwd=tmp_path)
        assert done.returncode == 2 and done.stderr.startswith(f"usage: bash tools/{script} ")
        assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("script", ["dist_train.sh", "pretrain.sh"])
@pytest.mark.parametrize("number", ["0", "two", "-1"])
def test_a_wrong_number_of_gpus_is_refused(script: str, number: str, tmp_path: Path) -> None:
    done = run(script, "config.py", number, cwd=tmp_path)
    assert done.returncode == 2 and f"NGPUS={number}: it must be a whole number" in done.stderr


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (
            ["dist_train.sh", "det_configs/mst_maskrcnn_coco.py", "8"],
            ["data/coco/annotations/instances_train2017.json", "cocodataset.org", "MST_DATA_ROOT"],
        ),
        (["dist_train.sh", "det_configs/no_such.py", "2"], ["does not exist"]),
        (["pretrain.sh", "pretrain/configs/mst_vit_sample.py", "2"], ["data/sample/photos does not exist"]),
        (["slurm_pretrain.sh", "part", "job", "config.py"], ["no 'srun' here"]),
    ],
)
def test_what_is_missing_is_said(words: list[str], parts: list[str], tmp_path: Path) -> None:
    done = run(*words, cwd=tmp_path)
    assert done.returncode == 1 and "Traceback" not in done.stderr and "processes on the CPU" not in done.stderr
    assert not list(tmp_path.iterdir())
    assert done.stderr.count(parts[0]) == 1 and all(part in done.stderr for part in parts)  # once, not by each process


@pytest.mark.slow
@on_cpu
def test_two_processes_on_the_cpu_train_and_test(tiny_seg_config: Path, tmp_path: Path) -> None:
    work_dir = tmp_path / "a run"
    done = run("dist_train.sh", str(tiny_seg_config), "2", "--work-dir", str(work_dir), cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "2 processes on the CPU" in done.stderr
    trained = json.loads((work_dir / "results.json").read_text())
    assert "2 processes" in trained["hardware"] and "mIoU" in trained["metrics"]
    (log,) = work_dir.glob("*/*.log")
    text = log.read_text()
    assert "joined by gloo" in text and "SyncBN became mst_transfer.GlooSyncBN" in text
    assert "[2/2]" in text.replace("  ", " ")  # 8 images, 2 a batch, 2 processes: two steps an epoch

    words = [str(tiny_seg_config), str(work_dir / "epoch_2.pth"), "2", "--work-dir", str(tmp_path / "t")]
    done = run("dist_test.sh", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    tested = json.loads((tmp_path / "t" / "results.json").read_text())
    assert tested["metrics"]["mIoU"] == pytest.approx(trained["metrics"]["mIoU"], abs=0.01)
    assert main(["test", *words[:2], "--work-dir", str(tmp_path / "one")]) == 0  # in this process: to the last digit
    alone = json.loads((tmp_path / "one" / "results.json").read_text())
    assert (alone["world_size"], tested["world_size"]) == (1, 2) and alone["metrics"] == tested["metrics"]


def test_slurm_gets_one_task_a_gpu(tmp_path: Path) -> None:
    (tmp_path / "srun").write_text("#!/bin/sh\nprintf '%s\\n' \"$@\"\n")
    (tmp_path / "srun").chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    words = ["part", "job", "config.py", "--cfg-options", "a=b c"]
    environment = dict(PATH=path, GPUS="16", SRUN_ARGS="--qos high")
    done = run("slurm_train.sh", *words, cwd=tmp_path, **environment)
    got = done.stdout.splitlines()
    assert got[:8] == ["--partition", "part", "--job-name", "job", "--ntasks", "16", "--ntasks-per-node", "8"]
    assert "--qos" in got and got[-5:] == ["config.py", "--cfg-options", "a=b c", "--launcher", "slurm"]


def test_an_active_environment_goes_before_the_python_that_made_it(root: Path, tmp_path: Path) -> None:
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_text("#!/bin/sh\n")
    python.chmod(0o755)
    command = ["bash", "-c", f"source '{root}/tools/_launch.sh' && mst_python"]
    for active, expected in ((tmp_path, str(python)), ("", "python3.12"), (tmp_path / "gone", "python3.12")):
        environment = {**os.environ, "PYTHON": "python3.12", "VIRTUAL_ENV": str(active)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == expected


def test_an_unsupported_python_is_refused(tmp_path: Path, root: Path) -> None:
    """In a copy without .venv, with an interpreter that says it is too old."""
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "install.sh").write_text((root / "tools" / "install.sh").read_text())
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.8.1 && exit 0\nexit 1\n')
    python.chmod(0o755)
    command = ["bash", str(tmp_path / "tools" / "install.sh")]
    done = subprocess.run([*command, str(python)], capture_output=True, text=True)
    assert done.returncode == 1 and "Python 3.8.1 is not supported; Python 3.10 to 3.13 is" in done.stderr
    done = subprocess.run([*command, "no-such-python"], capture_output=True, text=True)
    assert done.returncode == 1 and "no 'no-such-python' found" in done.stderr


@pytest.mark.parametrize(
    ("line", "words", "folder"), [("openmmlab", [], ".venv"), ("onedl", ["--onedl"], ".venv-onedl")]
)
def test_each_line_of_the_mm_packages_has_its_own_environment(
    line: str, words: list[str], folder: str, tmp_path: Path, root: Path
) -> None:
    """In a copy with an environment whose Python writes down what it is asked for, and what ``setup.py`` then wants."""
    for name in (
        "setup.py",
        "pyproject.toml",
        "constraints.txt",
        "tools/install.sh",
        "mst_transfer/compat/mm_lines.py",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text((root / name).read_text())
    (tmp_path / "mst_transfer" / "__init__.py").write_text('__version__ = "1"\n')
    programs = tmp_path / folder / "bin"
    programs.mkdir(parents=True)
    (programs / "activate").write_text("")
    read = "from distutils.core import run_setup; print(*run_setup('setup.py', stop_after='init').install_requires)"
    lines = (
        "#!/bin/sh",
        '[ "$1" = -c ] || echo "$*" >> calls',
        f"'{sys.executable}' -c \"import setuptools; {read}\" > wanted",
    )
    (programs / "python").write_text("\n".join(lines) + "\n")
    (programs / "python").chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if name != "MST_TRANSFER_MM"}
    environment["PYTHON"] = "no-such-python"  # no other environment is made
    subprocess.run(["bash", "tools/install.sh", *words], cwd=tmp_path, env=environment, check=True)
    project, *others = (tmp_path / "calls").read_text().splitlines()
    assert project == f"-m pip install --quiet -c {tmp_path}/constraints.txt -e {tmp_path}[dev]"
    added = f"-m pip install --quiet --no-deps -c {tmp_path}/constraints.txt mmcv-lite"
    assert others == ([added] if line == "onedl" else [])
    wanted = [Requirement(one) for one in (tmp_path / "wanted").read_text().split()]
    mm = {one.name: one.specifier for one in wanted if one.name in ("mmcv-lite", *MM_NAMES)}
    lite = {} if line == "onedl" else {"mmcv-lite": ">=2.0.0rc4,<2.2"}  # which would bring OpenMMLab's mmengine along
    assert mm == {name: SpecifierSet(versions) for name, versions in {**MM_LINES[line], **lite}.items()}
