import json

import numpy as np
import pytest
import torch

from pretrain.pictures import grey_out, load_run, look, main, read_square
from pretrain.train import main as train


def test_hidden_patches_are_grey():
    photos, mask = np.ones((1, 4, 4, 3)), np.array([[[True, False], [False, False]]])
    grey = grey_out(photos, mask)
    assert (grey[0, :2, :2] == 0.5).all() and grey[0].sum() == 48 - 12 * 0.5


def test_look_shows_what_the_model_sees(tiny_mst):
    mst = tiny_mst(masking=dict(num=4)).eval()
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    views = look(mst, images)
    assert views.importance.shape == (3, 4, 4) and views.mask.sum(axis=(1, 2)).tolist() == [4, 4, 4]
    for importance, mask in zip(views.importance, views.mask, strict=True):
        assert importance[mask].max() <= importance[~mask].min()
    batch = mst.normalise(torch.from_numpy(images).permute(0, 3, 1, 2))
    expected = mst.teacher.backbone(batch, importance=True).importance.detach().reshape(3, 4, 4)
    np.testing.assert_allclose(views.importance, expected, rtol=1e-6)
    flat = (batch - batch.mean(dim=(2, 3), keepdim=True)).abs().mean().item()
    assert views.error[1] == pytest.approx(flat, rel=1e-5) and views.restored.shape == (3, 32, 32, 3)


def test_squares_come_from_the_middle(tmp_path):
    import cv2

    image = np.zeros((20, 60, 3), np.uint8)
    image[:, 20:40] = 255
    cv2.imwrite(str(tmp_path / "wide.png"), image)
    assert (read_square(str(tmp_path / "wide.png"), 10) == 255).all()


def test_command_line(tiny_config, photo_folder, tmp_path, capsys):
    run, out = tmp_path / "run", tmp_path / "pictures"
    assert train([str(tiny_config), "--work-dir", str(run)]) == 0
    assert main([str(run), "--images", str(photo_folder), "--out", str(out), "--num", "3"]) == 0
    entries = json.loads((out / "index.json").read_text())
    assert [entry["file"] for entry in entries] == ["importance.png", "restored.png"]
    assert all((out / entry["file"]).stat().st_size > 5000 for entry in entries)
    assert "Mean absolute error over these 3 views" in entries[1]["caption"]


def test_a_folder_without_a_run_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"no checkpoint in {tmp_path}"):
        load_run(tmp_path)
