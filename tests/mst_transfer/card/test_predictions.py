"""Heads are run on validation images: the truth is the scenes', the answers have its form and place."""

import numpy as np
import pytest

from mst_transfer.card.predictions import predict
from mst_transfer.configs.saved import FILE, write_saved_config
from mst_transfer.datasets.sample.scenes import CLASSES, OBJECT_CLASSES, draw_scene, scene_generator
from mst_transfer.datasets.sample.write import SampleDataRequest, make_sample_data
from mst_transfer.files.image_files import UnreadableImageError

SIZE = 64
CONFIGS = {"det": "det_configs/mst_maskrcnn_sample.py", "seg": "seg_configs/mst_setr_pup_sample.py"}


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """Makes a work directory with untrained weights of a sample config."""

    def make(task):
        import torch
        from mmengine.config import Config
        from mmengine.registry import MODELS, init_default_scope

        from mst_transfer.configs.shipped import resolve_config

        monkeypatch.setenv("MST_DATA_ROOT", str(tmp_path))
        request = SampleDataRequest(num_train=1, num_val=4, num_photos=1, size=SIZE)
        make_sample_data(tmp_path / "sample", request)
        cfg = Config.fromfile(str(resolve_config(CONFIGS[task])))
        cfg.model.backbone.update(checkpoint=None, depth=4)
        init_default_scope(cfg.default_scope)
        torch.manual_seed(0)
        work_dir = tmp_path / "run"
        work_dir.mkdir()
        torch.save({"state_dict": MODELS.build(cfg.model).state_dict()}, work_dir / "epoch_1.pth")
        write_saved_config(cfg, work_dir / FILE)
        return work_dir

    return make


def test_detection(trained):
    run = trained("det")
    assert all(not len(item.found.boxes) for item in predict(run, num_images=1, min_score=1.1)[1])
    classes, found = predict(run, num_images=2, min_score=0.0)
    assert classes == OBJECT_CLASSES and [item.name for item in found] == ["000001.jpg", "000003.jpg"]
    for index, item in zip((1, 3), found, strict=True):
        drawn = draw_scene(scene_generator(0, "coco/val", index), SIZE)
        assert np.abs(item.image.astype(int) - drawn.image).mean() < 12, "JPEG of the same scene, RGB"
        assert item.truth.labels.tolist() == list(drawn.labels) and np.array_equal(item.truth.masks, drawn.masks)
        for (x0, y0, x1, y1), mask in zip(item.truth.boxes.tolist(), drawn.masks, strict=True):
            rows, columns = np.nonzero(mask)
            assert (x0, y0, x1, y1) == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        boxes, masks, labels, scores = item.found
        assert len(boxes), "with no lower bound some boxes are found"
        assert masks.shape == (len(boxes), SIZE, SIZE) and ((0 <= scores) & (scores <= 1)).all()
        assert labels.max() < len(OBJECT_CLASSES) and boxes.max() <= SIZE


def test_segmentation(trained):
    classes, found = predict(trained("seg"), num_images=2, min_score=0.3)
    assert classes == CLASSES
    for index, item in zip((1, 3), found, strict=True):
        drawn = draw_scene(scene_generator(0, "cityscapes/val", index), SIZE)
        assert np.array_equal(item.image, drawn.image)
        assert np.array_equal(item.truth, drawn.semantic)
        assert item.found.shape == (SIZE, SIZE) and item.found.max() < len(CLASSES)


def test_a_broken_picture_is_named(trained, tmp_path):
    run = trained("det")
    (path,) = (tmp_path / "sample").rglob("val*/000003.jpg")
    path.write_bytes(path.read_bytes()[:400])
    with pytest.raises(UnreadableImageError, match=r"000003\.jpg"):
        predict(run, num_images=2, min_score=0.3)
