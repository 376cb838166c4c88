"""Kind and paths of a config are looked at before anything is built or written, by every command that takes one."""

from pathlib import Path

import pytest
from mmengine.config import Config

from mst_transfer.cli.main import main as mst
from mst_transfer.configs.paths import check_pretraining_paths, holds_image
from mst_transfer.configs.read import (
    DETECTION,
    PRETRAINING,
    SEGMENTATION,
    WrongKindError,
    check_kind,
    config_kind,
    read_config,
)
from mst_transfer.configs.shipped import available_configs, config_root
from pretrain.run.train import main as pretrain

SAMPLE = "pretrain/configs/mst_vit_sample.py"
DETECTOR = "det_configs/mst_maskrcnn_sample.py"
KINDS = {"det_configs": DETECTION, "seg_configs": SEGMENTATION, "pretrain": PRETRAINING}


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to stand in, without data."""
    monkeypatch.delenv("MST_DATA_ROOT", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_shipped_config_has_the_kind_of_its_folder() -> None:
    for name in available_configs():
        assert config_kind(Config.fromfile(config_root() / name)) == KINDS[name.split("/")[0]], name


def test_configs_of_other_projects_are_known_by_their_parts() -> None:
    assert config_kind(Config(dict(default_scope="mine", train_cfg=dict(type="pretrain.PretrainLoop")))) == PRETRAINING
    assert config_kind(Config(dict(default_scope="mmseg", model=dict(type="mst_transfer.Padded")))) == SEGMENTATION
    mine = Config(dict(default_scope="mine", model=dict(type="MyDetector")))
    assert config_kind(mine) is None
    check_kind(mine, DETECTION, SEGMENTATION)  # what is not known is not refused
    with pytest.raises(WrongKindError, match="has no model"):
        check_kind(Config(dict(default_scope="mmdet")), DETECTION)


def run(command: str, config: str) -> int:
    """``mst VERB``, or ``mst-pretrain``, with options."""
    program, *words = command.split()
    return pretrain([config, *words]) if program == "mst-pretrain" else mst([words[0], config, *words[1:]])


PRETRAINING_REFUSED = dict.fromkeys(["mst train", "mst train --check-only", "mst params", "mst complexity"], SAMPLE)
DETECTION_REFUSED = dict.fromkeys(["mst-pretrain", "mst-pretrain --check-only"], DETECTOR)


@pytest.mark.parametrize(("command", "config"), (PRETRAINING_REFUSED | DETECTION_REFUSED).items())
def test_a_config_of_another_kind_is_refused(command: str, config: str, nowhere: Path, capsys) -> None:
    assert run(command, config) == 1
    error, kind = capsys.readouterr().err, KINDS[config.split("/")[0]]
    assert f"is a {kind} config" in error and ("mst pretrain" if config == SAMPLE else "mst train") in error
    assert len(error.splitlines()) == 1 and not list(nowhere.iterdir())


@pytest.mark.parametrize("command", ["mst check", "mst-pretrain --check-only", "mst-pretrain"])
def test_missing_images_of_a_pretraining_are_all_that_is_said(command: str, nowhere: Path, capsys) -> None:
    assert run(command, SAMPLE) == 1
    out, error = capsys.readouterr()
    assert out == "" and "data/sample/photos does not exist" in error and "mst sample-data data/sample" in error
    assert "train_dataloader.dataset.data_root" in error and len(error.splitlines()) < 8
    assert not list(nowhere.iterdir())


def test_all_paths_of_a_pretraining_are_said_at_once(nowhere: Path, capsys) -> None:
    (nowhere / "data/imagenet/train").mkdir(parents=True)  # no image in it
    assert pretrain(["pretrain/configs/mst_vit_small_16_imagenet_continue.py", "--check-only"]) == 1
    error = capsys.readouterr().err
    for part in ("holds no image", "dino_deitsmall16_pretrain.pth", "model.init_from", "data/imagenet/val"):
        assert part in error
    cfg = read_config("pretrain/configs/mst_vit_small_16_imagenet_continue.py")[0]
    cfg.model.init_from, cfg.load_from = "timm://vit_small_patch16_224.dino", str(nowhere)
    with pytest.raises(FileNotFoundError) as refusal:
        check_pretraining_paths(cfg)
    assert "timm" not in str(refusal.value) and "is a folder, not a file   (load_from)" in str(refusal.value)
    with pytest.raises(FileNotFoundError) as refusal:
        check_pretraining_paths(cfg, begins=False)  # the checkpoint to go on from holds all weights
    assert "load_from" not in str(refusal.value) and "data/imagenet/val" in str(refusal.value)


def test_a_folder_of_images_is_found_wherever_they_are(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "notes.txt").touch()
    assert not holds_image(str(tmp_path), ("jpg",))
    (tmp_path / "a" / "b" / "X.JPG").touch()
    assert holds_image(str(tmp_path), ("jpg",)) and not holds_image(str(tmp_path), (".png",))
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "link").symlink_to(tmp_path / "a")
    assert holds_image(str(tmp_path / "c"), (".png",))  # what is behind links is found later


def test_a_sound_pretraining_is_said_to_be_so(nowhere: Path, capsys) -> None:
    (nowhere / "data/sample/photos").mkdir(parents=True)
    (nowhere / "data/sample/photos/1.png").touch()
    assert pretrain([SAMPLE, "--check-only"]) == 0 and "data/sample/photos" in capsys.readouterr().out
    assert mst(["check", SAMPLE]) == 0 and "data/sample/photos" in capsys.readouterr().out
    (nowhere / "run").mkdir()
    (nowhere / "run" / "iter_4.pth").touch()
    assert pretrain([SAMPLE, "--check-only", "--work-dir", "run"]) == 1 and "iter_4.pth" in capsys.readouterr().err
    assert pretrain([SAMPLE, "--check-only", "--work-dir", "run", "--resume"]) == 0
    assert mst(["check", SAMPLE, "--coco", "a.json", "b.json"]) == 1 and "--coco" in capsys.readouterr().err


def test_a_load_from_that_is_not_there_is_said_before_a_head_is_trained(tiny_seg_config: Path, capsys) -> None:
    words = [str(tiny_seg_config), "--cfg-options", "load_from=gone.pth"]
    for command in (["train", *words, "--check-only"], ["check", *words]):
        assert mst(command) == 1 and "gone.pth does not exist   (load_from)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("x.py", "model = dict(\n", ["x.py", "line 1"]),
        ("x.md", "# x\n", ["x.md", ".py"]),
        ("x.py", '_base_ = "gone.py"\n', ["x.py", "gone.py"]),
    ],
)
@pytest.mark.parametrize("command", ["mst train", "mst check", "mst-pretrain"])
def test_files_that_are_no_configs_are_one_message(
    name: str, text: str, words: list[str], command: str, nowhere: Path, capsys
) -> None:
    (nowhere / name).write_text(text)
    assert run(command, name) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"{command}: ") and all(word in error for word in words)
