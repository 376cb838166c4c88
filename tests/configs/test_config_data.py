"""Data go through the pipelines of the configs: the sample set, COCO, its mini set, CamVid, ADE20K."""

import importlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.registry import init_default_scope
from recipes import RECIPES, read

from mst_transfer.datasets.sample.write import SampleDataRequest, make_sample_data
from mst_transfer.engine.testing import with_augmentation
from mst_transfer.preflight.check import check_datasets


@pytest.fixture(scope="module")
def sample_data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    make_sample_data(folder / "sample", SampleDataRequest(num_train=4, num_val=2, num_photos=1, size=64))
    return folder


@pytest.mark.parametrize("name", ["det_configs/mst_maskrcnn_sample.py", "seg_configs/mst_setr_pup_sample.py"])
def test_sample_data_go_through_the_pipelines(name, sample_data, monkeypatch):
    monkeypatch.setenv("MST_DATA_ROOT", str(sample_data))
    cfg = read(name)
    check_datasets(cfg)
    init_default_scope(cfg.default_scope)
    registry = importlib.import_module(f"{cfg.default_scope}.registry").DATASETS
    train, val = registry.build(cfg.train_dataloader.dataset), registry.build(cfg.val_dataloader.dataset)
    assert (len(train), len(val)) == (4, 2)
    assert train[0]["inputs"].shape == (3, 64, 64) and train[0]["inputs"].dtype == torch.uint8
    sample = val[0]["data_samples"]
    assert sample.ori_shape == sample.img_shape == (64, 64)


@pytest.mark.parametrize("name", ["mst_maskrcnn_swin_tiny_coco_3x", "mst_vitdet_base_coco_100e"])
def test_augmentations_of_coco_go_through(name, sample_data):
    from mmdet.registry import DATASETS, MODELS

    init_default_scope("mmdet")
    cfg = read(f"det_configs/{name}.py")
    sample = read("det_configs/mst_maskrcnn_sample.py").train_dataloader.dataset
    files = dict(ann_file=sample.ann_file, data_prefix=sample.data_prefix, data_root=str(sample_data / "sample/coco"))
    data = DATASETS.build(dict(cfg.train_dataloader.dataset, **files, metainfo=sample.metainfo, filter_cfg=None))
    np.random.seed(0)
    torch.manual_seed(0)
    preprocessor = MODELS.build(cfg.model.data_preprocessor)
    for item in (data[index] for index in range(4)):
        height, width = item["inputs"].shape[-2:]
        batch = preprocessor(dict(inputs=[item["inputs"]], data_samples=[item["data_samples"]]), training=True)
        masks = batch["data_samples"][0].gt_instances.masks
        if "vitdet" in name:
            assert max(height, width) <= 1024 and batch["inputs"].shape[-2:] == (1024, 1024)
            assert (masks.height, masks.width) == (1024, 1024)
        else:
            assert 384 <= max(height, width) <= 1333 and {side % 32 for side in batch["inputs"].shape[-2:]} == {0}


def test_overfit_config_evaluates_on_its_16_training_images(shared_data, monkeypatch):
    from mmdet.registry import DATASETS, METRICS

    monkeypatch.setenv("MST_DATA_ROOT", str(shared_data))
    cfg = read("det_configs/mst_maskrcnn_coco_mini_overfit16.py")
    init_default_scope("mmdet")
    train, val = DATASETS.build(cfg.train_dataloader.dataset), DATASETS.build(cfg.val_dataloader.dataset)
    names = [[data.get_data_info(index)["img_path"] for index in range(len(data))] for data in (train, val)]
    assert names[0] == names[1] and len(names[0]) == 16
    # Perfect predictions reach 100: the metric's ground truth is these images alone.
    metric = METRICS.build(cfg.val_evaluator)
    metric.dataset_meta = val.metainfo
    for index in range(len(val)):
        sample = val[index]["data_samples"].to_dict()
        truth = sample["gt_instances"]
        boxes, masks = truth["bboxes"].tensor, torch.from_numpy(truth["masks"].masks).bool()
        sample["pred_instances"] = dict(
            bboxes=boxes, labels=truth["labels"], scores=torch.ones(len(boxes)), masks=masks
        )
        metric.process({}, [sample])
    assert metric.evaluate(16)["coco/bbox_mAP"] > 0.99


def test_camvid_is_read_as_its_eleven_classes(shared_data, monkeypatch):
    from mmseg.registry import DATASETS

    monkeypatch.setenv("MST_DATA_ROOT", str(shared_data))
    cfg = read("seg_configs/mst_setr_pup_camvid.py")
    check_datasets(cfg)
    init_default_scope("mmseg")
    val = DATASETS.build(cfg.val_dataloader.dataset)
    seen = set()
    for index in range(0, len(val), 10):
        seen |= set(val[index]["data_samples"].gt_sem_seg.data.unique().tolist())
    assert len(val) == 101 and seen == {*range(11), 255}


@pytest.mark.parametrize("name", [name for name in RECIPES if "ade20k" in name])
def test_every_pipeline_of_ade20k_ignores_the_zero(name):
    cfg = read(name)
    pipelines = [cfg[f"{split}_dataloader"].dataset.pipeline for split in ("train", "val", "test")]
    pipelines.append([step for steps in cfg.tta_pipeline[1].transforms for step in steps])
    for pipeline in pipelines:
        assert [step.reduce_zero_label for step in pipeline if step.type == "LoadAnnotations"] == [True]


def test_ade20ks_masks_become_classes_in_every_pipeline(tmp_path, monkeypatch):
    """A miniature in ADE20K's layout, whose masks hold every value from 0 to 150."""
    from mmseg.registry import DATASETS

    values = np.arange(40 * 60).reshape(40, 60) % 151
    for split in ("training", "validation"):
        for kind, ending, pixels in (("images", "jpg", np.full((40, 60, 3), 128)), ("annotations", "png", values)):
            folder = tmp_path / "ade" / "ADEChallengeData2016" / kind / split
            folder.mkdir(parents=True)
            for index in range(2):
                cv2.imwrite(str(folder / f"{index}.{ending}"), pixels.astype(np.uint8))
    monkeypatch.setenv("MST_DATA_ROOT", str(tmp_path))
    cfg = read("seg_configs/mst_upernet_vit_small_ade20k.py")
    check_datasets(cfg)
    init_default_scope("mmseg")
    validation = DATASETS.build(cfg.val_dataloader.dataset)
    assert len(validation) == 2 and len(validation.metainfo["classes"]) == 150
    expected = np.where(values == 0, 255, values - 1)
    assert np.array_equal(validation[0]["data_samples"].gt_sem_seg.data[0].numpy(), expected)
    training = DATASETS.build(cfg.train_dataloader.dataset)[0]
    assert set(training["data_samples"].gt_sem_seg.data.unique().tolist()) <= {*range(150), 255}
    augmented = DATASETS.build(with_augmentation(cfg).test_dataloader.dataset)[0]
    assert len(augmented["inputs"]) == 12 and augmented["data_samples"][1].flip
    assert [tuple(image.shape[-2:]) for image in augmented["inputs"][::4]] == [(256, 384), (512, 768), (768, 1152)]
    for sample in augmented["data_samples"]:
        assert np.array_equal(sample.gt_sem_seg.data[0].numpy(), expected)
