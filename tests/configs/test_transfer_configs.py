"""Detection and segmentation configs, small and at full scale: they build, fit their data, and can be inherited."""

from pathlib import Path

import pytest
import timm
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from recipes import LEAVES, ROOT, full_scale, read

from mst_transfer.configs.datasets import class_names, dataset_class
from mst_transfer.configs.keys import check_config
from mst_transfer.datasets.sample.scenes import CLASSES, OBJECT_CLASSES
from mst_transfer.engine import check_model
from mst_transfer.preflight.num_classes import find_num_classes


@pytest.mark.parametrize("name", LEAVES)
def test_every_config_builds(name, monkeypatch):
    cfg = read(name)
    check_config(cfg)
    monkeypatch.setattr(check_model, "build_meta_model", lambda _: full_scale(name))  # built once for all tests
    check_model.check_model(cfg, begins=False)
    build_optim_wrapper(full_scale(name), cfg.optim_wrapper)
    assert cfg.default_scope == ("mmdet" if name.startswith("det") else "mmseg")
    assert "custom_imports" not in cfg


@pytest.mark.parametrize("name", LEAVES)
def test_heads_have_the_classes_of_the_data(name):
    cfg = read(name)
    for loader in ("train_dataloader", "val_dataloader", "test_dataloader"):
        dataset = cfg[loader].dataset
        classes = class_names(dataset, dataset_class(dataset, cfg.default_scope))
        heads = dict(find_num_classes(cfg.model))
        assert heads and set(heads.values()) == {len(classes)}, (loader, heads)


@pytest.mark.parametrize("name", LEAVES)
def test_normalisation_is_imagenets(name):
    preprocessor = read(name).model.data_preprocessor
    assert preprocessor.bgr_to_rgb
    assert [round(value / 255, 3) for value in preprocessor.mean] == [0.485, 0.456, 0.406]
    assert [round(value / 255, 3) for value in preprocessor.std] == [0.229, 0.224, 0.225]


@pytest.mark.parametrize("name", [name for name in LEAVES if "overfit" not in name])
def test_a_config_starts_from_what_pretraining_writes(name):
    backbone = read(name).model.backbone
    if "dinov" in name:  # published weights
        published = backbone.checkpoint.removeprefix("timm://")
        assert published in timm.list_pretrained() and published.startswith(f"{backbone.arch}.")
        return
    work_dirs, *run, file = Path(backbone.checkpoint).parts
    assert (work_dirs, file) == ("work_dirs", "teacher.safetensors")
    source = "study/mst" if run[0] == "study" else run[0]
    expected = Config.fromfile(ROOT / "pretrain" / "configs" / f"{source}.py").model.backbone
    fields = ["arch", "embed_dim", "depth", "num_heads", *([] if "imagenet" in source else ["img_size", "patch_size"])]
    assert {field: backbone.get(field) for field in fields} == {field: expected.get(field) for field in fields}
    assert expected.get("patch_size", 16) == backbone.get("patch_size", 16)


def test_sample_configs_name_the_generators_classes():
    det, seg = read("det_configs/mst_maskrcnn_sample.py"), read("seg_configs/mst_setr_pup_sample.py")
    assert tuple(det.train_dataloader.dataset.metainfo.classes) == OBJECT_CLASSES
    assert tuple(seg.train_dataloader.dataset.metainfo.classes) == CLASSES


@pytest.mark.parametrize("name", LEAVES)
def test_data_root_comes_from_the_environment(name, monkeypatch):
    def roots(cfg):
        loaders = [cfg[f"{split}_dataloader"].dataset for split in ("train", "val", "test")]
        files = [cfg[f"{split}_evaluator"].get("ann_file") for split in ("val", "test")]
        return [dataset.data_root for dataset in loaders] + [file for file in files if file]

    monkeypatch.delenv("MST_DATA_ROOT", raising=False)
    assert all(root.startswith("data/") for root in roots(read(name)))
    monkeypatch.setenv("MST_DATA_ROOT", "/somewhere/else")
    assert all(root.startswith("/somewhere/else/") for root in roots(read(name)))


def test_configs_are_inherited_by_package_name(tmp_path, monkeypatch):
    monkeypatch.setenv("MST_DATA_ROOT", "/somewhere/else")
    mine, base = tmp_path / "mine.py", "mst_transfer::det_configs/mst_maskrcnn_coco.py"
    mine.write_text(f"_base_ = '{base}'\nwork_dir = 'elsewhere'\nmodel = dict(backbone=dict(drop_path_rate=0.2))\n")
    cfg = Config.fromfile(mine)
    assert cfg.work_dir == "elsewhere" and cfg.model.backbone.drop_path_rate == 0.2
    assert cfg.train_dataloader.dataset.data_root == "/somewhere/else/coco/"
    assert cfg.model.type == "MaskRCNN" and cfg.model._scope_ == "mmdet"
    assert cfg.model.backbone.type == "mst_transfer.TimmViTPyramid"


@pytest.mark.parametrize("name", LEAVES)
def test_bases_are_at_most_three_deep(name):
    def depth(path):
        bases = Config._get_base_files(path)
        files = [Config._get_cfg_path(base, path)[0] for base in bases]
        return 1 + max(map(depth, files), default=-1) if files else 0

    assert depth(str(ROOT / name)) <= 3
