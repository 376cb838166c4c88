"""Pre-trainings in TensorBoard, MLflow and Weights & Biases, read back from what these have written."""

import json
import sys
from pathlib import Path

import pytest
import torch
from tracked_runs import events, mlflow_runs, wandb_rows

from mst_transfer.runs import trackers
from pretrain.run import from_folder
from pretrain.run.train import main

STEPS = list(range(1, 13))


pytestmark = pytest.mark.usefixtures("local_trackers")


def losses(folder):
    """What mmengine's own file says of the loss, by step."""
    lines = [line for file in sorted(Path(folder).glob("2*/vis_data/*.json")) for line in file.read_text().splitlines()]
    rows = [json.loads(line) for line in lines]
    return {row["step"]: row["loss"] for row in rows if "loss" in row}


def test_curves_and_config_arrive_in_all_three_and_a_resumed_run_goes_on(tiny_config, tmp_path, monkeypatch):
    pytest.importorskip("mlflow", reason="mlflow is not installed")
    pytest.importorskip("wandb", reason="wandb is not installed")
    run = tmp_path / "run"
    words = ["--work-dir", str(run), "--track", "tensorboard", "--track", "mlflow", "--track", "wandb"]
    assert main([str(tiny_config), *words, "--seed", "3"]) == 0
    known = json.loads((run / trackers.FILE).read_text())
    (run / "iter_12.pth").unlink()
    assert main([str(tiny_config), *words, "--resume", "--seed", "3"]) == 0  # from step 8
    assert json.loads((run / trackers.FILE).read_text()) == known

    expected = losses(run)
    assert list(expected) == STEPS
    scalars, read = events(run)
    assert [step for step, _ in scalars["loss"]] == [*STEPS, *STEPS[8:]]
    assert dict(scalars["loss"]) == pytest.approx(expected)
    assert any("config" in tag for tag in read.Tags()["tensors"])

    client, (tracked,) = mlflow_runs(run)
    assert tracked.info.run_id == known["mlflow"] and tracked.info.status == "FINISHED"
    history = {one.step: one.value for one in client.get_metric_history(tracked.info.run_id, "loss")}
    assert history == pytest.approx(expected)
    assert tracked.data.params["model.backbone.embed_dim"] == "24"
    artifacts = [one.path for one in client.list_artifacts(tracked.info.run_id)]
    assert {"config.py", *(folder.name for folder in run.glob("2*"))} == set(artifacts)  # and each start's log

    starts = wandb_rows(run)
    assert [name for name, _, _ in starts] == [known["id"]] * 2
    found = {row["step"]: row["loss"] for _, _, rows in starts for row in rows if "loss" in row}
    assert found == pytest.approx(expected) and all("model" in keys for _, keys, _ in starts)
    assert not [path for path in run.glob("wandb/**/code/**/*.py")]  # nobody's programs


@pytest.mark.parametrize("fault", ["_init_env", "add_config", "add_scalars", "close"])
def test_a_tracker_that_fails_is_told_once_and_the_run_goes_on(tiny_config, tmp_path, monkeypatch, fault):
    calls = []

    def fail(*args, **kwargs):
        calls.append(fault)
        raise ConnectionError("the server is on fire\nwith details")

    monkeypatch.setattr(trackers._TensorBoard, fault, fail)
    run = tmp_path / "run"
    assert main([str(tiny_config), "--work-dir", str(run), "--track", "tensorboard"]) == 0
    (log,) = run.glob("2*/*.log")
    told = [line for line in log.read_text().splitlines() if "on fire" in line]
    assert len(told) == 1 and len(calls) == (2 if fault == "close" else 1)
    assert "WARNING - tensorboard tracks this run no longer, which goes on" in told[0]
    assert (run / "teacher.safetensors").is_file() and list(losses(run)) == STEPS


def test_a_fault_is_told_without_the_password_of_an_address():
    class Silent:
        def add_scalars(self, *_):
            raise OSError("no answer from http://bob:secret@host/api")

        def close(self):
            pass

    told = []
    trackers.Tracker("mlflow", Silent(), told.append).add_scalars({})
    assert told == ["mlflow tracks this run no longer, which goes on (OSError: no answer from http://host/api)"]


def test_a_backend_of_the_config_does_not_stop_a_run_either(tiny_config, tmp_path):
    backends = "[dict(type='mmengine.LocalVisBackend'), dict(type='mmengine.AimVisBackend')]"  # aim is not installed
    tiny_config.write_text(f"{tiny_config.read_text()}\nvisualizer = dict(vis_backends={backends})\n")
    assert main([str(tiny_config), "--work-dir", str(tmp_path / "run")]) == 0
    (log,) = (tmp_path / "run").glob("2*/*.log")
    assert log.read_text().count("AimVisBackend tracks this run no longer") == 1
    assert not (tmp_path / "run" / trackers.FILE).exists()


def test_tracking_changes_no_weight(tiny_config, tmp_path):
    for name, words in (("a", []), ("b", ["--track", "tensorboard"])):
        assert main([str(tiny_config), "--work-dir", str(tmp_path / name), "--seed", "3", *words]) == 0
    one, other = (torch.load(tmp_path / name / "iter_12.pth", weights_only=True)["state_dict"] for name in "ab")
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tensorbord", "--track tensorbord: it must be one of tensorboard, mlflow, wandb"),
        ("mlflow", "--track mlflow: it is not installed. Next step: pip install mlflow"),
    ],
)
def test_what_cannot_track_is_told_before_anything(
    tiny_config, photo_folder, tmp_path, monkeypatch, capsys, name, message
):
    find = trackers.importlib.util.find_spec
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda one: None if one == "mlflow" else find(one))
    assert main([str(tiny_config), "--work-dir", str(tmp_path / "run"), "--track", name]) == 1
    assert message in capsys.readouterr().err and not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match=message):
        from_folder.pretrain(photo_folder, tmp_path / "run", track=[name])
    assert not (tmp_path / "run").exists()


def test_a_folder_called_wandb_is_no_package(tmp_path, monkeypatch):
    (tmp_path / "not_a_package").mkdir()
    monkeypatch.setitem(trackers.TRACKERS, "not_a_package", None)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ValueError, match="pip install not_a_package"):
        trackers.check_trackers(["not_a_package"])
    assert "not_a_package" not in sys.modules


def test_other_processes_track_nothing(tmp_path, monkeypatch):
    from mst_transfer.runs import resuming_runner

    monkeypatch.setattr(resuming_runner, "is_main_process", lambda: False)
    monkeypatch.setattr(resuming_runner, "track", lambda *args: pytest.fail("it tracks"))
    from mmengine.config import Config
    from torch import nn

    cfg = Config(dict(track=["tensorboard"]))
    resuming_runner.ResumingRunner(str(tmp_path / "run"), model=nn.Linear(1, 1), cfg=cfg)
    assert not (tmp_path / "run" / trackers.FILE).exists()
