import json
import shutil
from pathlib import Path

import cv2
import matplotlib
import numpy as np
import pytest
import timm
import torch

from mst_transfer.configs.saved import FILE
from mst_transfer.probes.attention import attention_maps
from mst_transfer.probes.maps import heat_map, overlay
from pretrain.pictures.__main__ import main
from pretrain.pictures.inference import read_crop, run_model
from pretrain.pictures.picture_folder import choose_images, grey_out, load_run

SWIN = dict(arch="swin_tiny_patch4_window7_224", img_size=64, embed_dim=8, depths=(1, 1, 1, 1), num_heads=(1, 1, 2, 3))


def test_hidden_patches_are_grey():
    photos, mask = np.ones((1, 4, 6, 3)), np.array([[[True, False, False], [False, False, True]]])
    grey = grey_out(photos, mask)
    assert (grey[0, :2, :2] == 0.5).all() and (grey[0, 2:, 4:] == 0.5).all()
    assert grey[0].sum() == 72 - 2 * 12 * 0.5


def test_heat_maps_are_patches_in_colour():
    """The lowest value has the first colour, what is above the 99th percentile the last; patches are not smoothed."""
    attention = np.arange(200.0).reshape(10, 20)
    picture = heat_map(attention, 30, 60)
    ends = [tuple(round(255 * c) for c in matplotlib.colormaps["inferno"](end)[:3]) for end in (0.0, 1.0)]
    assert tuple(picture[0, 0]) == ends[0] and tuple(picture[-1, -1]) == ends[1] == tuple(picture[-1, -4])
    assert (picture.reshape(10, 3, 20, 3, 3) == picture[::3, ::3].reshape(10, 1, 20, 1, 3)).all()
    assert (heat_map(np.full((2, 2), 0.3), 4, 4) == ends[0]).all()  # a flat map has no scale
    shown = overlay(np.zeros((30, 60, 3)), attention)
    np.testing.assert_allclose(shown, 0.75 * picture / 255, atol=1e-9)


@pytest.mark.parametrize("size", [(32, 32), (16, 48)])
def test_run_model_shows_what_the_model_sees(tiny_mst, size):
    mst = tiny_mst(masking=dict(num=4)).eval()
    images = np.random.default_rng(0).integers(0, 256, (3, *size, 3), dtype=np.uint8)
    views, grid = run_model(mst, images), (size[0] // 8, size[1] // 8)
    candidates = grid[0] * grid[1] // 4
    assert views.importance.shape == (3, *grid) and views.heads.shape == (3, 2, *grid)
    assert views.mask.sum(axis=(1, 2)).tolist() == [candidates] * 3
    for importance, mask in zip(views.importance, views.mask, strict=True):
        assert importance[mask].max() <= importance[~mask].min()
    batch = mst.normalise(torch.from_numpy(images).permute(0, 3, 1, 2))
    expected = mst.teacher.backbone(batch, importance=True).importance.detach().reshape(3, *grid)
    np.testing.assert_allclose(views.importance, expected, rtol=1e-6)
    flat = (batch - batch.mean(dim=(2, 3), keepdim=True)).abs().mean().item()
    assert views.error[1] == pytest.approx(flat, rel=1e-5) and views.restored.shape == (3, *size, 3)


def test_a_view_that_is_masked_in_training_is_shown(tiny_mst):
    """Where the second view alone is masked, a picture of the first would say that nothing is hidden."""
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    for view in (0, 1):
        assert run_model(tiny_mst(masking=dict(num=4, views=(view,))).eval(), images).mask.mean() == 0.25


def test_swin_masks_whole_cells(tiny_mst):
    mst = tiny_mst(backbone=SWIN, masking=dict(num=3)).eval()
    views = run_model(mst, np.random.default_rng(0).integers(0, 256, (2, 64, 96, 3), dtype=np.uint8))
    assert views.heads.shape == (2, 3, 2, 3) and views.mask.sum(axis=(1, 2)).tolist() == [2, 2]
    assert views.restored.shape == (2, 64, 96, 3)
    assert (grey_out(np.zeros((2, 64, 96, 3)), views.mask) > 0).sum() == 2 * 2 * 32 * 32 * 3


@pytest.mark.parametrize("height, width", [(10, 10), (10, 30), (40, 20)])
def test_crops_come_from_the_middle(tmp_path: Path, height: int, width: int):
    image = np.zeros((20, 100, 3), np.uint8)
    columns = round(20 * width / height)  # a full-height part of these proportions
    image[:, 50 - columns // 2 : 50 + columns // 2] = 255
    cv2.imwrite(str(tmp_path / "wide.png"), image)
    assert (read_crop(str(tmp_path / "wide.png"), height, width) == np.full((height, width, 3), 255)).all()


def test_images_are_files_and_shares_of_folders(photo_folder: Path):
    single, folders = photo_folder / "part_1" / "01.png", [photo_folder / "part_0", photo_folder / "part_1"]
    chosen = choose_images([single, *folders], 5)
    assert [Path(path).parent.name for path in chosen] == ["part_1"] + 3 * ["part_0"] + 2 * ["part_1"]
    assert chosen[0] == str(single) and len(choose_images(folders, 100)) == 24
    with pytest.raises(FileNotFoundError, match="gone.jpg"):
        choose_images([photo_folder / "gone.jpg"], 5)
    with pytest.raises(ValueError, match="--num 0"):
        choose_images(folders, 0)


def test_command_line(finished: Path, photo_folder: Path, tmp_path: Path, capsys):
    run, out = finished, tmp_path / "pictures"
    assert main([str(run), "--images", str(photo_folder), "--out", str(out), "--num", "3"]) == 0
    entries = json.loads((out / "index.json").read_text())
    assert [entry["file"] for entry in entries] == ["importance.png", "restored.png"]
    assert all((out / entry["file"]).stat().st_size > 5000 for entry in entries)
    assert "the teacher's class token" in entries[0]["caption"] and "mode 'attention'" in entries[0]["caption"]
    assert "Mean absolute error over these 3 views" in entries[1]["caption"]
    for size, status in (("40", 0), ("30", 1)):
        words = [str(run), "--images", str(photo_folder / "part_0" / "00.png"), "--out", str(out), "--size", size]
        assert main(words) == status
    assert "30x30 px is not a multiple of the patch size 8: choose a size such as 24 or 32" in capsys.readouterr().err


def test_pictures_of_a_run_with_compiled_blocks_need_no_compiler(finished: Path, tmp_path: Path, monkeypatch):
    run = shutil.copytree(finished, tmp_path / "run")
    config = run / FILE
    config.write_text(config.read_text().replace('"backbone": {', '"backbone": {"compile_blocks": true,', 1))
    model, _ = load_run(run)
    monkeypatch.setattr(torch, "compile", None)
    assert model.teacher.backbone(torch.zeros(1, 3, 32, 32)).cls_token.shape == (1, 24)


@pytest.mark.parametrize(
    "options, size, words",
    [
        ({}, (48, 32), "the teacher's class token over the patches"),
        (SWIN | dict(head_dim=4), (96, 64), "the teacher's average-pooled feature over the last-stage"),
    ],
    ids=["vit", "swin"],
)
def test_heads_of_a_backbone_file(photo_folder: Path, tmp_path: Path, tiny_mst, save_teacher, options, size, words):
    """Each map equals the colours of the attention that the network gives for the photograph."""
    mst, photo, out = tiny_mst(backbone=options), photo_folder / "part_0" / "04.png", tmp_path / "pictures"
    arguments = ["--checkpoint", str(save_teacher(mst)), "--images", str(photo), "--out", str(out)]
    assert main([*arguments, "--heads", "--size", *map(str, size)]) == 0
    entries = json.loads((out / "index.json").read_text())
    assert [entry["file"] for entry in entries] == ["importance.png", "heads_01_04.png"]
    assert all(words in entry["caption"].replace("The", "the").replace("Attention", "attention") for entry in entries)
    image, backbone = torch.from_numpy(read_crop(str(photo), *size)).permute(2, 0, 1), mst.teacher.backbone
    heads = attention_maps(backbone.vit, mst.normalise(image)[None])[0].detach().numpy()
    cell = backbone.cell_size
    assert heads.shape == (len(heads), size[0] // cell, size[1] // cell) and len(heads) > 1
    assert len(list((out / "heads" / "01_04").iterdir())) == len(heads) + 1
    for number, head in enumerate(heads, 1):
        picture = cv2.imread(str(out / "heads" / "01_04" / f"head_{number}.png"))[..., ::-1]
        assert picture.shape == (*size, 3)
        assert abs(picture.astype(int) - heat_map(head, *size)).max() <= 2  # a step of the colour scale


def test_files_of_others_show_their_architecture_or_need_its_name(photo_folder: Path, tmp_path: Path, capsys):
    unusual = timm.create_model("vit_tiny_patch16_224", embed_dim=24, depth=1)
    torch.save({"teacher": unusual.state_dict()}, tmp_path / "timm.pth")
    arguments = ["--checkpoint", str(tmp_path / "timm.pth"), "--images", str(photo_folder / "part_0" / "00.png")]
    arguments += ["--out", str(tmp_path / "pictures"), "--size", "64"]
    assert main(arguments) == 1 and "--arch vit_small_patch16_224" in capsys.readouterr().err
    torch.save({"model": timm.create_model("vit_tiny_patch16_224").state_dict()}, tmp_path / "timm.pth")
    assert main([*arguments, "--arch", "vit_tiny_patch16_224"]) == 0 and main(arguments) == 0
    assert "attention of the network's class token" in (tmp_path / "pictures" / "index.json").read_text()
    assert "loaded" in capsys.readouterr().err and (tmp_path / "pictures" / "importance.png").is_file()


@pytest.mark.parametrize(
    "words",
    ["", "run --checkpoint file", "run --size 1 2 3", "run --role student", "run --arch vit_tiny_patch16_224",
     "--checkpoint file --config config.py"],
)  # fmt: skip
def test_contradictory_arguments_are_refused(words):
    with pytest.raises(SystemExit):
        main([*words.split(), "--images", "x", "--out", "y"])


def test_a_folder_without_a_run_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"no checkpoint in {tmp_path}"):
        load_run(tmp_path)
