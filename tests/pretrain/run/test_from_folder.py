"""A folder of photos is enough: plan, training, going on; and what is refused."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import mst_transfer
from mst_transfer.checkpoint import read_backbone
from mst_transfer.cli.main import main
from mst_transfer.configs.read import read_config
from pretrain.run import from_folder
from pretrain.run.folder_recipe import Facts


@pytest.fixture
def teacher(tiny_mst, save_teacher) -> Path:
    """A backbone file of two narrow blocks: what goes on from it is small."""
    return save_teacher(tiny_mst())


def train(photos: Path, out: Path, *words: str) -> int:
    return main(["pretrain", str(photos), "--out", str(out), *words])


def test_photos_to_backbone_and_going_on(photo_folder: Path, teacher: Path, tmp_path: Path, capsys) -> None:
    """Interrupted after an epoch, the same command ends with the same weights."""
    out, words = tmp_path / "out", ["--init", str(teacher), "--epochs", "2", "--seed", "3"]
    assert train(photo_folder, out, *words) == 0
    said = capsys.readouterr().out
    assert "plan for 24 photos" in said and "model.head.out_dim = 64: prototypes" in said
    assert said.rstrip().endswith(str(out / "teacher.safetensors"))
    plan = (out / "plan.py").read_text()
    assert "# model.head.out_dim = 64: prototypes" in plan and f"'photos': ['{photo_folder}']" in plan
    cfg, _ = read_config(str(out / "plan.py"))
    assert cfg.model.init_from == str(teacher) and cfg.model.backbone.embed_dim == 24
    assert cfg.train_cfg.max_epochs == 2 and cfg.randomness.seed == 3
    weights = load_file(out / "teacher.safetensors")
    assert read_backbone(out / "teacher.safetensors")[1].provenance["seed"] == 3

    for path in [*out.glob("epoch_2*"), out / "last_checkpoint", out / "teacher.safetensors"]:
        path.unlink()
    assert train(photo_folder, out, *words) == 0
    assert "going on with it" in capsys.readouterr().out and (out / "plan.py").read_text() == plan
    again = load_file(out / "teacher.safetensors")
    assert weights.keys() == again.keys() and all(torch.equal(weights[name], again[name]) for name in weights)

    assert train(photo_folder, out, *words[:2], "--epochs", "3") == 1  # another plan
    assert f"{out} holds another run: {{'photos'" in capsys.readouterr().err
    (out / "plan.py").unlink()
    assert train(photo_folder, out, *words) == 1
    assert f"{out} holds another run: epoch_1.pth" in capsys.readouterr().err


def test_the_same_in_python(photo_folder: Path, teacher: Path, tmp_path: Path, monkeypatch) -> None:
    words: list[list[str]] = []
    monkeypatch.setattr(from_folder.train, "main", lambda given: words.append(given) or 0)
    done = mst_transfer.pretrain(photo_folder, tmp_path / "out", init=teacher, epochs=1)
    assert done.checkpoint == tmp_path / "out" / "teacher.safetensors" and done.work_dir == tmp_path / "out"
    assert words == [[str(tmp_path / "out" / "plan.py"), "--work-dir", str(tmp_path / "out"), "--gpus", "1"]]
    monkeypatch.setattr(from_folder.train, "main", lambda given: 75)
    with pytest.raises(RuntimeError, match="ended with status 75"):
        mst_transfer.pretrain([photo_folder], tmp_path / "other", init=str(teacher), epochs=1)


def test_minutes_are_measured_on_the_step(
    photo_folder: Path, teacher: Path, tmp_path: Path, capsys, monkeypatch
) -> None:
    monkeypatch.setattr(from_folder, "_STEPS", 2)
    words = ["--init", str(teacher), "--minutes", "10000", "--dry-run"]
    assert train(photo_folder, tmp_path / "out", *words) == 0
    said = capsys.readouterr().out
    assert " s a step" in said and "train_cfg.max_epochs = " in said and not (tmp_path / "out").exists()

    monkeypatch.setattr(from_folder, "seconds_a_step", lambda text: 2.0)
    assert train(photo_folder, tmp_path / "out", "--minutes", "4", "--dry-run") == 0
    assert "max_epochs = 20: of 6 steps" in capsys.readouterr().out  # 120 steps


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--minutes", "1", "--epochs", "1"], "--minutes and --epochs exclude each other"),
        (["--model", "vit_tiny", "--init", "x"], "--model and --init exclude each other"),
        (["--epochs", "0"], "--epochs 0 must be positive"),
        (["--minutes", "-1"], "--minutes -1.0 must be positive"),
        (["--model", "vit_smal"], "nearest are vit_small"),
        (["--init", "gone.pth"], "gone.pth"),
        (["--gpus", "0"], "0 GPUs asked for"),
        (["--minutes", "0.001"], "there is time for"),
    ],
)
def test_mistakes_are_refused(
    words: list, message: str, photo_folder: Path, tmp_path: Path, capsys, monkeypatch
) -> None:
    monkeypatch.setattr(from_folder, "seconds_a_step", lambda text: 1.0)
    assert train(photo_folder, tmp_path / "out", *words) == 1
    assert message in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("*.pth"))


def test_folders_that_cannot_be_used_are_refused(photo_folder: Path, tmp_path: Path, capsys) -> None:
    few, empty, text = tmp_path / "few", tmp_path / "empty", tmp_path / "text"
    shutil.copytree(photo_folder / "part_0", few)  # 12
    empty.mkdir()
    text.mkdir()
    (text / "x.jpg").write_text("no photo")
    (tmp_path / "file").write_text("")
    for photos, out, message in (
        (few, "out", "12 photos are too few: give at least 16"),
        (empty, "out", "No image under"),
        (tmp_path / "nowhere", "out", "does not exist"),
        (text, "out", "none of the photos that were looked at can be read"),
        (photo_folder, "file", "cannot write"),
        (photo_folder, "file/out", "name a folder instead of a file"),
    ):
        assert train(photos, tmp_path / out) == 1
        assert message in capsys.readouterr().err
    assert main(["pretrain", "no_such.py"]) == 1 and "no_such.py does not exist" in capsys.readouterr().err


def test_a_config_goes_to_mst_pretrain(tiny_config: Path, capsys) -> None:
    assert main(["pretrain", str(tiny_config), "--check-only"]) == 0
    assert "names and paths are sound" in capsys.readouterr().out


def test_nets_by_device_size_and_file(teacher: Path) -> None:
    cpu, gpu = Facts(1000, 500), Facts(1000, 500, gpus=1)
    assert from_folder.choose_net(None, None, cpu)[:2] == ("vit_tiny_patch16_224", {})
    small = from_folder.choose_net(None, None, gpu)
    assert small.arch == "vit_small_patch16_224" and small.cell == 16 and round(small.millions, 1) == 21.7
    assert from_folder.choose_net("vit_base", None, cpu._replace(side=64)).cell == 8
    swin = from_folder.choose_net("swin_tiny", None, cpu._replace(side=64))
    assert swin.cell == 32 and round(swin.millions, 1) == 27.5
    net = from_folder.choose_net(None, str(teacher), cpu)
    assert net.cell == 8 and net.options["embed_dim"] == 24 and net.init["init_from"] == str(teacher)
    assert tuple(net.init["mean"]) == (0.485, 0.456, 0.406)
