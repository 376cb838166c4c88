"""``--gpus N``: what is started, and what is refused; real groups are in tests/tools/test_launchers.py."""

import os
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest
import torch

from mst_transfer.cli.main import main
from mst_transfer.engine import results
from mst_transfer.runs import processes, stop

VARIABLES = (
    "NNODES",
    "NODE_RANK",
    "MASTER_ADDR",
    "PORT",
    "MAX_RESTARTS",
    "OMP_NUM_THREADS",
    "TORCH_DISABLE_SHARE_RDZV_TCP_STORE",
)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Words that torchrun would get, a list a start."""
    for name in VARIABLES:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    calls: list[list[str]] = []
    monkeypatch.setattr(stop, "run_torchrun", lambda words: calls.append(list(words)) or 75)
    return calls


def test_one_process_and_members_of_a_group_do_the_work_themselves(started: list) -> None:
    for gpus, launcher in ((1, "none"), (4, "pytorch"), (4, "slurm")):
        assert processes.start(Namespace(gpus=gpus, launcher=launcher), ["module"], []) is None
    assert not started


def test_a_group_gets_the_same_words(started: list, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    status = processes.start(
        Namespace(gpus=3, launcher="none"), ["mst_transfer.cli.main", "train"], ["a b.py", "--gpus", "3"]
    )
    (words,) = started
    assert status == 75 and "3 processes on the CPU" in capsys.readouterr().err
    cut = words.index("-m")
    assert words[cut:] == ["-m", "mst_transfer.cli.main", "train", "a b.py", "--gpus", "3", "--launcher", "pytorch"]
    options = dict(word.lstrip("-").split("=") for word in words[:cut])
    assert (options["nproc_per_node"], options["nnodes"], options["master_addr"]) == ("3", "1", "127.0.0.1")
    assert 0 < int(options["master_port"]) != 29500 and os.environ["OMP_NUM_THREADS"].isdigit()


def test_several_nodes(started: list, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    monkeypatch.setenv("NNODES", "2")
    with pytest.raises(ValueError, match="NNODES=2 needs MASTER_ADDR"):
        processes.run_group(8, ["tools/train.py"])
    monkeypatch.setenv("MASTER_ADDR", "nowhere.invalid")
    with pytest.raises(ValueError, match="MASTER_ADDR=nowhere.invalid: there is no way"):
        processes.run_group(8, ["tools/train.py"])
    for name, value in dict(MASTER_ADDR="localhost", MAX_RESTARTS="3", PET_RDZV_CONF="join_timeout=9").items():
        monkeypatch.setenv(name, value)
    assert processes.start(Namespace(gpus=1, launcher="none"), ["module"], []) == 75  # one GPU, but not one machine
    wanted = ["--nnodes=2", "--nproc_per_node=1", "--max_restarts=3", "--rdzv_backend=c10d"]
    assert started[0][:7] == [*wanted, "--rdzv_endpoint=localhost:29500", "--local_addr=localhost", "-m"]
    for rank, is_host in (("0", 1), ("1", 0)):
        monkeypatch.setenv("NODE_RANK", rank)
        processes.run_group(8, ["tools/train.py"])
        assert started[-1][6:8] == [f"--rdzv_conf=is_host={is_host},join_timeout=9", "tools/train.py"]
    assert "OMP_NUM_THREADS" not in os.environ


@pytest.mark.parametrize(("visible", "asked"), [(2, 3), (2, 0), (0, 0), (0, -1)])
def test_what_is_not_there_is_refused(
    visible: int, asked: int, started: list, monkeypatch, tiny_seg_config, capsys
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: visible)
    assert main(["train", str(tiny_seg_config), "--gpus", str(asked)]) == 1 and not started
    assert f"mst train: {asked} GPUs asked for, {visible or 'none'} are visible" in capsys.readouterr().err


def test_config_and_data_are_looked_at_before_the_start(
    started: list, tiny_seg_config: Path, tmp_path: Path, capsys
) -> None:
    from pretrain.run.train import main as pretrain

    assert main(["train", str(tiny_seg_config), "--gpus", "2", "--cfg-options", "optm=1"]) == 1
    assert main(["test", str(tiny_seg_config), str(tmp_path / "gone.pth"), "--gpus", "2"]) == 1
    assert pretrain(["pretrain/configs/mst_vit_sample.py", "--gpus", "2", "--cfg-options", "model.init_from=gone"]) == 1
    assert not started and capsys.readouterr().err.count("gone") >= 2


def test_the_recorded_command_is_the_typed_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MST_DATA_ROOT", raising=False)
    monkeypatch.setattr(sys, "argv", ["/x/cli/main.py", "train", "c.py", "--gpus", "2", "--launcher", "pytorch"])
    assert results.command(2) == "mst train c.py --gpus 2"


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="about processes on the CPU; there is a GPU here")
def test_two_processes_train_from_an_empty_folder(tiny_seg_config: Path, tmp_path: Path, root: Path) -> None:
    here = tmp_path / "here"
    here.mkdir()
    words = ["-m", "mst_transfer.cli.main", "train", str(tiny_seg_config), "--gpus", "2", "--work-dir", "run"]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, *words], cwd=here, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert '"world_size": 2' in (here / "run" / "results.json").read_text()
