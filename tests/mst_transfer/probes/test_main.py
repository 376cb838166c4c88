"""The evaluation command lines, on one process and on two."""

import json
import subprocess
from pathlib import Path

import pytest
import timm
import torch

from mst_transfer.checkpoint import BackboneMetadata, save_backbone
from mst_transfer.checkpoint.pos_embed import resample_pos_embed
from mst_transfer.probes.backbones import create_backbone, load_frozen
from mst_transfer.probes.features import extract_features
from mst_transfer.probes.labelled_images import LabelledImages
from mst_transfer.probes.main import main

KWARGS = dict(img_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=2)
ARCH = "vit_tiny_patch16_224"
SWIN = (
    "--arch swin_tiny_patch4_window7_224 --arch-options img_size=64 embed_dim=12 depths=(1,1,1,1) num_heads=(1,1,1,2)"
)


@pytest.fixture
def data(tmp_path: Path, photo_folder: Path) -> Path:
    """Train and val are the same 24 pictures in two classes."""
    (tmp_path / "data").mkdir()
    for part in ("train", "val"):
        (tmp_path / "data" / part).symlink_to(photo_folder)
    return tmp_path / "data"


def save(folder: Path, **changes) -> tuple[Path, torch.nn.Module]:
    torch.manual_seed(0)
    vit = create_backbone(ARCH, **KWARGS).eval()
    metadata = BackboneMetadata(ARCH, KWARGS, 8, (32, 32), 24, (0.5,) * 3, (0.3,) * 3, "teacher", **changes)
    save_backbone(folder / "teacher.safetensors", vit.state_dict(), metadata)
    return folder / "teacher.safetensors", vit


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return save(tmp_path)[0]


def test_knn_of_the_training_images_themselves(checkpoint: Path, data: Path, tmp_path: Path, capsys):
    out = tmp_path / "sub" / "knn.json"
    assert main("eval_knn", [str(checkpoint), str(data), "--k", "1", "5", "--out", str(out)]) == 0
    result = json.loads(out.read_text())
    assert result["top1"]["1"] == 100 and set(result["top1"]) == {"1", "5"}
    assert 1 <= result["effective_rank"] <= 24
    assert "loaded" in capsys.readouterr().out


def test_features_are_in_the_order_of_the_images(photo_folder: Path):
    images = LabelledImages(photo_folder, 16)
    features, labels = extract_features(lambda views: views.float().mean(dim=(2, 3)), images, batch_size=5)
    torch.testing.assert_close(features, torch.stack([images[i][0].float().mean(dim=(1, 2)) for i in range(24)]))
    assert labels.tolist() == images.labels


@pytest.mark.parametrize("interpolation", ["timm", "dino"])
def test_positions_are_resampled_as_the_file_says(tmp_path: Path, interpolation: str):
    path, vit = save(tmp_path, pos_embed_interpolation=interpolation)
    frozen, _ = load_frozen(path)
    views = torch.randint(0, 256, (2, 3, 48, 48), dtype=torch.uint8)
    positions = resample_pos_embed(vit.pos_embed, (6, 6), (4, 4), 1, interpolation)
    patches = vit.patch_embed.proj((views / 255 - 0.5) / 0.3).flatten(2).transpose(1, 2)
    tokens = torch.cat([vit.cls_token.expand(2, -1, -1), patches], dim=1) + positions
    for block in vit.blocks:
        tokens = block(tokens)
    torch.testing.assert_close(frozen.features()(views), vit.norm(tokens)[:, 0])


def test_linear_with_and_without_cache(checkpoint: Path, data: Path, tmp_path: Path):
    for extra in (["--cache"], []):
        out = tmp_path / "linear.json"
        options = ["--blocks", "2", "--epochs", "3", "--lr", "0.1", "1", "--held-out", "0.25", "--batch-size", "8"]
        assert main("eval_linear", [str(checkpoint), str(data), *options, *extra, "--out", str(out)]) == 0
        result = json.loads(out.read_text())
        assert result["top1"] == result["top1_by_lr"][str(result["lr"])]
        assert result["held_out"][str(result["lr"])] == max(result["held_out"].values())


@pytest.mark.parametrize(
    ("program", "words", "message"),
    [
        ("eval_knn", "FILE DATA --k 1 25", "k=25 must lie in 1 … 24"),
        ("eval_knn", "FILE DATA --arch vit_small_patch16_224", "leave --arch out"),
        ("eval_knn", "FILE DATA --role student", "role='teacher'"),
        ("eval_knn", "FILE DATA --size 30", "multiple of the patch size"),
        ("eval_knn", "FILE FOLDER", "class folders"),
        ("eval_knn", "random DATA", "--arch"),
        ("eval_knn", "random DATA --arch vit_tiny_patch16_224 --arch-options depth", "--arch-options 'depth': it must"),
        ("eval_knn", "none.pth DATA", "none.pth"),
        ("eval_knn", "AVERAGING DATA", "fc_norm"),  # its final norm belongs to the average, not to the class token
        ("eval_knn", "FOREIGN DATA --std 0 1 1", "std"),
        ("eval_knn", "FOREIGN DATA --mean 127 127 127", "mean"),
        ("eval_knn", "FOREIGN DATA --arch vit_tiny_patch16_224.no", "tag"),
        ("eval_linear", "FILE DATA --blocks 3", "blocks = 3 must lie in 1 … 2"),
        ("eval_linear", "FILE DATA --held-out 0", "--held-out 0 of 24 training images is 0"),
        ("eval_linear", "FILE DATA --held-out 0.99", "is 24"),
        ("eval_linear", "FILE DATA --lr 1 0.1 --held-out 0.01", "--lr 1.0 0.1"),
        ("eval_linear", f"random DATA {SWIN} --blocks 4", "blocks = 4 must lie in 1 … 1"),
        ("eval_linear", f"random DATA {SWIN} --average-patches", "average-patches"),
    ],
)
def test_wrong_input_is_named_before_anything_is_computed(
    checkpoint: Path, data: Path, tmp_path: Path, capsys, monkeypatch, program: str, words: str, message: str
):
    monkeypatch.delattr("mst_transfer.probes.protocols.extract_features")
    torch.save(timm.create_model(ARCH, num_classes=10, global_pool="avg", depth=2).state_dict(), tmp_path / "avg.pth")
    places = dict(FILE=checkpoint, DATA=data, FOLDER=tmp_path, AVERAGING=tmp_path / "avg.pth")
    places["FOREIGN"] = foreign(tmp_path)
    assert main(program, [str(places.get(word, word)) for word in words.split()]) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "option",
    ["--k 0", "--k 3 -1", "--temperature 0", "--temperature nan", "--batch-size 0", "--size 0", "--num-workers -1",
     "--epochs 0", "--lr 0.1 0", "--blocks 0", "--out ."],
)  # fmt: skip
def test_values_that_are_never_right_are_refused_first(capsys, option: str):
    name = option.split()[0]
    program = "eval_linear" if name in ("--epochs", "--lr", "--blocks") else "eval_knn"
    with pytest.raises(SystemExit):
        main(program, ["no_such_file", "no_such_folder", *option.split()])
    assert f"argument {name}: " in capsys.readouterr().err


def test_default_features_fit_every_backbone(checkpoint: Path, data: Path, tmp_path: Path):
    """Four blocks, or as many as there are; of a Swin, the only feature that it has."""
    out, options = tmp_path / "linear.json", ["--epochs", "1", "--lr", "0.1", "--cache"]
    for words, blocks in (([str(checkpoint), str(data)], 2), (["random", str(data), *SWIN.split()], 1)):
        assert main("eval_linear", [*words, *options, "--out", str(out)]) == 0
        assert json.loads(out.read_text())["blocks"] == blocks


@pytest.mark.slow
@pytest.mark.parametrize("name", ["knn", "linear"])
def test_two_processes_measure_what_one_does(checkpoint: Path, data: Path, tmp_path: Path, root: Path, name: str):
    extra = ["--k", "3"] if name == "knn" else ["--blocks", "1", "--epochs", "2", "--lr", "0.5"]
    results = []
    for processes in ("1", "2"):
        out = tmp_path / f"{processes}.json"
        batch = str(24 // int(processes))
        words, rest = [str(checkpoint), str(data)], ["--batch-size", batch, *extra, "--out", str(out)]
        if (name, processes) == ("knn", "1"):  # the launcher starts a single process of either program alike
            assert main("eval_knn", [*words, *rest]) == 0
        else:
            command = ["bash", f"tools/eval_{name}.sh", *words, processes, *rest]
            subprocess.run(command, cwd=root, check=True, capture_output=True)
        results.append(json.loads(out.read_text()))
    assert results[0]["top1"] == results[1]["top1"]


def foreign(folder: Path) -> Path:
    torch.save(timm.create_model(ARCH, depth=1, img_size=32).state_dict(), folder / "x.pth")
    return folder / "x.pth"


NAMED = ["--arch", "vit_tiny_patch16_224.augreg_in21k", "--arch-options", "depth=1", "img_size=32"]


@pytest.mark.parametrize(
    ("words", "mean", "known"),
    [
        ([], [0.485, 0.456, 0.406], False),
        (NAMED, [0.5, 0.5, 0.5], True),
        (["--arch", "vit_tiny_patch16_224", *NAMED[2:]], [0.485, 0.456, 0.406], False),
        (["--mean", "0.1", "0.2", "0.3", "--std", "1", "1", "1"], [0.1, 0.2, 0.3], True),
        ([*NAMED, "--mean", "0.1", "0.2", "0.3"], [0.1, 0.2, 0.3], True),
    ],
)
def test_the_normalisation_of_a_foreign_file_is_said(words, mean, known, data: Path, tmp_path: Path, capsys):
    out = tmp_path / "knn.json"
    assert main("eval_knn", [str(foreign(tmp_path)), str(data), "--k", "1", *words, "--out", str(out)]) == 0
    found = json.loads(out.read_text())["normalisation"]
    assert (found["mean"], found["known"]) == (mean, known)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("normalisation: ")]
    assert str(mean) in line and ("assumed" in line) != known


def test_the_normalisation_that_is_said_is_applied(checkpoint: Path):
    views = torch.full((1, 3, 32, 32), 255, dtype=torch.uint8)
    for options, expected in (({}, (1 - 0.5) / 0.3), (dict(mean=(0.2,) * 3, std=(0.4,) * 3), (1 - 0.2) / 0.4)):
        frozen, _ = load_frozen(checkpoint, **options)
        torch.testing.assert_close(frozen.normalise(views), torch.full((1, 3, 32, 32), expected))
