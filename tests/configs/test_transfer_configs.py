"""Detection and segmentation configs: they build, say what they should, and the full-scale ones train."""

import copy
import functools
import importlib
import os
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope

from mst_transfer.configs.datasets import class_names, dataset_class
from mst_transfer.configs.keys import check_config
from mst_transfer.datasets.sample.scenes import CLASSES, OBJECT_CLASSES
from mst_transfer.datasets.sample.write import SampleDataRequest, make_sample_data
from mst_transfer.engine.check_model import check_model
from mst_transfer.engine.fit.devices import adapt_to_devices
from mst_transfer.engine.plan.meta_model import build_meta_model
from mst_transfer.preflight.num_classes import find_num_classes

ROOT = Path(__file__).resolve().parent.parent.parent
LEAVES = sorted(
    path.relative_to(ROOT).as_posix()
    for folder in ("det_configs", "seg_configs")
    for path in (ROOT / folder).glob("*.py")
)
DET, SEG = "det_configs/mst_maskrcnn_coco.py", "seg_configs/mst_setr_pup_cityscapes.py"


@functools.cache
def _read(name, data_root):
    return Config.fromfile(ROOT / name)


def read(name):
    """A config of its own for each test; mmengine takes most of a second to read one."""
    return copy.deepcopy(_read(name, os.environ.get("MST_DATA_ROOT")))


@functools.cache
def full_scale(name):
    """The model of a config as it is, on the meta device; many tests look at the same one."""
    return build_meta_model(read(name))


def build_model(cfg):
    """The model of a config, on the CPU and from random weights."""
    cfg.model.backbone.checkpoint = None
    adapt_to_devices(cfg, world_size=1, on_cuda=False)
    init_default_scope(cfg.default_scope)
    importlib.import_module(f"{cfg.default_scope}.models")
    return importlib.import_module(f"{cfg.default_scope}.registry").MODELS.build(cfg.model)


def test_there_are_the_promised_configs():
    assert {DET, SEG} <= set(LEAVES)
    for task, names in {
        "det_configs/mst_maskrcnn": ("sample", "coco_mini", "coco_mini_overfit16"),
        "seg_configs/mst_setr_pup": ("sample", "camvid"),
    }.items():
        assert {f"{task}_{name}.py" for name in names} <= set(LEAVES)


@pytest.mark.parametrize("name", LEAVES)
def test_every_config_builds(name):
    cfg = read(name)
    check_config(cfg)
    check_model(cfg, begins=False)
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


def test_sample_configs_name_the_generators_classes():
    det, seg = read("det_configs/mst_maskrcnn_sample.py"), read("seg_configs/mst_setr_pup_sample.py")
    assert tuple(det.train_dataloader.dataset.metainfo.classes) == OBJECT_CLASSES
    assert tuple(seg.train_dataloader.dataset.metainfo.classes) == CLASSES


@pytest.mark.parametrize("name", LEAVES)
def test_data_root_comes_from_the_environment(name, monkeypatch):
    """Also where another project inherits the config by its package name."""

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
    mine = tmp_path / "mine.py"
    mine.write_text(f"_base_ = 'mst_transfer::{DET}'\nmodel = dict(backbone=dict(drop_path_rate=0.2))\n")
    cfg = Config.fromfile(mine)
    assert cfg.model.backbone.drop_path_rate == 0.2
    assert cfg.train_dataloader.dataset.data_root == "/somewhere/else/coco/"
    assert cfg.model.backbone.type == "mst_transfer.TimmViTPyramid"


@pytest.mark.parametrize("name", LEAVES)
def test_bases_are_at_most_three_deep(name):
    def depth(path):
        bases = Config._get_base_files(path)
        files = [Config._get_cfg_path(base, path)[0] for base in bases]
        return 1 + max(map(depth, files), default=-1) if files else 0

    assert depth(str(ROOT / name)) <= 3
    assert len((ROOT / name).read_text().splitlines()) <= 55


def test_detection_schedule_is_1x_at_batch_16():
    cfg = read(DET)
    assert cfg.train_cfg.max_epochs == 12 and cfg.auto_scale_lr.base_batch_size == 16
    assert cfg.train_dataloader.batch_size * 8 == 16
    assert cfg.optim_wrapper.optimizer.type == "AdamW"
    assert cfg.optim_wrapper.constructor == "mst_transfer.LayerDecayOptimWrapperConstructor"
    assert [item.get("milestones") for item in cfg.param_scheduler] == [None, [8, 11]]


def test_segmentation_schedule_is_40k_at_batch_8():
    cfg = read(SEG)
    assert cfg.train_cfg.max_iters == 40000 and cfg.auto_scale_lr.base_batch_size == 8
    assert cfg.train_dataloader.batch_size * 8 == 8
    assert cfg.optim_wrapper.optimizer == dict(type="SGD", lr=0.01, momentum=0.9, weight_decay=0.0)
    (poly,) = cfg.param_scheduler
    assert (poly.type, poly.power, poly.end, poly.by_epoch) == ("PolyLR", 0.9, 40000, False)
    assert cfg.model.data_preprocessor.size == (768, 768) == cfg.model.test_cfg.crop_size
    crop = next(step for step in cfg.train_dataloader.dataset.pipeline if step.type == "RandomCrop")
    assert crop.crop_size == (768, 768)


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def vit_small_parameters(num_tokens):
    """ViT-S/16 without a head, from its definition: D = 384, 12 blocks, MLP ratio 4."""
    width = 384
    attention = width * 3 * width + 3 * width + width * width + width
    mlp = 2 * width * 4 * width + 4 * width + width
    block = attention + mlp + 2 * 2 * width
    embedding = 3 * 16 * 16 * width + width + width + num_tokens * width
    return embedding + 12 * block + 2 * width


def test_detector_has_the_right_number_of_parameters():
    model = full_scale(DET)
    assert count(model.backbone.vit) == vit_small_parameters(14 * 14 + 1)
    doubling = 384 * 384 * 2 * 2 + 384
    assert count(model.backbone.pyramid) == 3 * doubling + 2 * 384
    assert count(model.neck) == 4 * (384 * 256 + 256) + 4 * (256 * 256 * 9 + 256)


def test_segmentor_has_the_right_number_of_parameters():
    model = full_scale(SEG)
    assert count(model.backbone) == vit_small_parameters(48 * 48 + 1)

    def conv(inputs: int) -> int:
        return inputs * 256 * 9 + 2 * 256  # followed by a norm: no bias

    classify = 256 * 19 + 19
    assert count(model.decode_head) == 2 * 384 + conv(384) + 3 * conv(256) + classify
    assert len(model.auxiliary_head) == 3
    assert count(model.auxiliary_head[0]) == 2 * 384 + conv(384) + conv(256) + classify


def make_wrapper(model, cfg):
    """The config's optimizer wrapper, which keeps the gradients of a step to be looked at."""
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    wrapper.zero_grad = lambda **kwargs: None
    return wrapper


def assert_trained(model, before, losses):
    assert all(torch.isfinite(value).all() for value in losses.values())
    without = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []  # what DistributedDataParallel would stop at
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert "backbone.vit.blocks.0.attn.qkv.weight" in changed and "backbone.vit.patch_embed.proj.weight" in changed


def test_full_scale_detector_trains_a_step():
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks
    from mmengine.structures import InstanceData

    torch.manual_seed(0)
    cfg = read(DET)
    model = build_model(cfg).train()
    wrapper = make_wrapper(model, cfg)
    samples = []
    for _ in range(2):
        sample = DetDataSample(metainfo=dict(img_shape=(96, 128), ori_shape=(96, 128), scale_factor=(1.0, 1.0)))
        masks = torch.zeros(2, 96, 128, dtype=torch.uint8)
        masks[0, 10:60, 10:50], masks[1, 30:90, 60:120] = 1, 1
        sample.gt_instances = InstanceData(
            bboxes=torch.tensor([[10.0, 10, 50, 60], [60, 30, 120, 90]]),
            labels=torch.tensor([3, 70]),
            masks=BitmapMasks(masks.numpy(), 96, 128),
        )
        sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long))
        samples.append(sample)
    images = [torch.randint(0, 256, (3, 96, 128), dtype=torch.uint8) for _ in samples]
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    losses = model.train_step(dict(inputs=images, data_samples=samples), wrapper)
    assert {"loss_rpn_cls", "loss_cls", "loss_bbox", "loss_mask"} <= set(losses)
    assert_trained(model, before, losses)
    (result,) = model.eval().test_step(dict(inputs=images[:1], data_samples=samples[:1]))
    assert result.pred_instances.masks.shape[-2:] == (96, 128)


def test_full_scale_segmentor_trains_a_step():
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    torch.manual_seed(0)
    cfg = read(SEG)
    cfg.merge_from_dict(
        {
            "model.backbone.img_size": 128,
            "model.data_preprocessor.size": (128, 128),
            "model.test_cfg.crop_size": (128, 128),
            "model.test_cfg.stride": (80, 80),
        }
    )
    model = build_model(cfg).train()
    wrapper = make_wrapper(model, cfg)
    samples = []
    for _ in range(2):
        sample = SegDataSample(metainfo=dict(img_shape=(100, 128), ori_shape=(100, 128)))
        sample.gt_sem_seg = PixelData(data=torch.randint(0, 19, (1, 100, 128)))
        samples.append(sample)
    images = [torch.randint(0, 256, (3, 100, 128), dtype=torch.uint8) for _ in samples]
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    losses = model.train_step(dict(inputs=images, data_samples=samples), wrapper)
    assert {"decode.loss_ce", "aux_0.loss_ce", "aux_1.loss_ce", "aux_2.loss_ce"} <= set(losses)
    assert_trained(model, before, losses)
    rates = sorted({group["lr"] for group in wrapper.optimizer.param_groups})
    assert rates == pytest.approx([0.01, 0.1])
    wide = dict(inputs=[torch.randint(0, 256, (3, 128, 200), dtype=torch.uint8)], data_samples=[SegDataSample()])
    wide["data_samples"][0].set_metainfo(dict(img_shape=(128, 200), ori_shape=(128, 200)))
    (result,) = model.eval().test_step(wide)
    assert result.pred_sem_seg.data.shape == (1, 128, 200)


@pytest.fixture(scope="module")
def sample_data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    make_sample_data(folder / "sample", SampleDataRequest(num_train=4, num_val=2, num_photos=1, size=64))
    return folder


@pytest.mark.parametrize("name", ["det_configs/mst_maskrcnn_sample.py", "seg_configs/mst_setr_pup_sample.py"])
def test_sample_data_go_through_the_pipelines(name, sample_data, monkeypatch):
    from mst_transfer.preflight.check import check_datasets

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
        boxes = truth["bboxes"].tensor
        sample["pred_instances"] = dict(
            bboxes=boxes,
            labels=truth["labels"],
            scores=torch.ones(len(boxes)),
            masks=torch.from_numpy(truth["masks"].masks).bool(),
        )
        metric.process({}, [sample])
    assert metric.evaluate(16)["coco/bbox_mAP"] > 0.99


def test_camvid_is_read_as_its_eleven_classes(shared_data, monkeypatch):
    from mmseg.registry import DATASETS

    from mst_transfer.preflight.check import check_datasets

    monkeypatch.setenv("MST_DATA_ROOT", str(shared_data))
    cfg = read("seg_configs/mst_setr_pup_camvid.py")
    check_datasets(cfg)
    init_default_scope("mmseg")
    val = DATASETS.build(cfg.val_dataloader.dataset)
    seen = set()
    for index in range(0, len(val), 10):
        seen |= set(val[index]["data_samples"].gt_sem_seg.data.unique().tolist())
    assert len(val) == 101 and seen == {*range(11), 255}
