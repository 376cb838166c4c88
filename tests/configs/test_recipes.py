"""Full-scale recipes: sizes from definitions, settings from the model zoos, and one real step of a small copy of each.

A copy has the same layers in the same order with fewer channels, blocks, classes and pixels. Recipes whose copies are
equal (those that differ in the backbone's width alone) share one step.
"""

import copy
import functools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from narrow_nets import narrow

from mst_transfer.datasets.sample.write import SampleDataRequest, make_sample_data
from mst_transfer.engine.fit.devices import adapt_to_devices
from mst_transfer.engine.plan.complexity import measure
from mst_transfer.engine.plan.meta_model import build_meta_model

ROOT = Path(__file__).resolve().parents[2]
SMALL = ("sample", "camvid", "mini")
RECIPES = sorted(
    path.relative_to(ROOT).as_posix()
    for folder in ("det_configs", "seg_configs")
    for path in (ROOT / folder).glob("*.py")
    if not any(word in path.stem for word in SMALL)
)
NUM_CLASSES, VIT_WIDTH, SWIN_WIDTH = 5, 48, 24


@functools.cache
def _read(name: str) -> Config:
    return Config.fromfile(ROOT / name)


def read(name: str) -> Config:
    return copy.deepcopy(_read(name))


def zoo(library: str, name: str) -> Config:
    """A config of a model zoo."""
    module = __import__(library)
    return Config.fromfile(Path(module.__file__).parent / ".mim" / "configs" / name)


def plain(node):
    """Lists for tuples, and without what says where files lie."""
    if isinstance(node, dict):
        return {key: plain(value) for key, value in node.items() if key not in ("backend_args", "_scope_")}
    return [plain(value) for value in node] if isinstance(node, list | tuple) else node


# ---- sizes


def vit_parameters(width: int, grid: int) -> int:
    """ViT of 12 blocks, patches of 16 and a class token, without head and final norm."""
    block = 4 * width * width + 4 * width + 8 * width * width + 5 * width + 4 * width
    return 3 * 256 * width + width + width + (grid * grid + 1) * width + 12 * block


def swin_parameters(width: int, depths: tuple[int, ...], heads: int) -> int:
    """Swin with windows of 7 and a norm behind each stage."""
    total = 3 * 16 * width + width + 2 * width
    for stage, depth in enumerate(depths):
        if stage:
            total += 2 * 4 * width + 4 * width * 2 * width
            width, heads = 2 * width, 2 * heads
        block = 12 * width * width + 9 * width + 4 * width + 13 * 13 * heads
        total += depth * block + 2 * width
    return total


BACKBONES = {
    "vit_small_patch16_224": lambda grid: vit_parameters(384, grid),
    "vit_base_patch16_224": lambda grid: vit_parameters(768, grid),
    "swin_tiny_patch4_window7_224": lambda grid: swin_parameters(96, (2, 2, 6, 2), 3),
    "swin_small_patch4_window7_224": lambda grid: swin_parameters(96, (2, 2, 18, 2), 3),
}


@functools.cache
def count_parts(name: str) -> dict[str, int]:
    model = build_meta_model(read(name))
    counts = {part: sum(p.numel() for p in module.parameters()) for part, module in model.named_children()}
    vit = model.backbone.vit
    counts["vit"] = sum(p.numel() for key, p in vit.named_parameters() if not key.startswith(("norm.", "fc_norm.")))
    counts["last_norm"] = sum(p.numel() for key, p in vit.named_parameters() if key.startswith("norm."))
    return counts


@pytest.mark.parametrize("name", RECIPES)
def test_backbones_have_the_parameters_of_their_definition(name: str):
    backbone = read(name).model.backbone
    side = backbone.get("img_size", 224)
    grid = (side if isinstance(side, int) else side[0]) // 16
    counts = count_parts(name)
    found = counts["vit"] + (counts["last_norm"] if backbone.type.endswith("Swin") else 0)
    if backbone.get("window_size"):  # the class token stands in no window and is left out
        found += 384 if "small" in backbone.arch else 768
    assert found == BACKBONES[backbone.arch](grid)


def test_heads_have_the_parameters_of_their_definition():
    def total(name: str) -> int:
        return sum(value for part, value in count_parts(name).items() if part not in ("vit", "last_norm"))

    linear = count_parts("seg_configs/mst_linear_vit_base_ade20k.py")
    assert linear["decode_head"] == 768 * 150 + 150
    naive = count_parts("seg_configs/mst_setr_naive_vit_small_cityscapes.py")
    head = 2 * 384 + 384 * 256 + 2 * 256 + 256 * 19 + 19
    assert naive["decode_head"] == head and naive["auxiliary_head"] == 3 * head
    # Swin's and MoBY's tables, in millions.
    for name, millions in (
        ("det_configs/mst_maskrcnn_swin_tiny_coco.py", 48),
        ("det_configs/mst_maskrcnn_swin_small_coco_3x.py", 69),
        ("det_configs/mst_cascade_maskrcnn_swin_tiny_coco_3x.py", 86),
        ("seg_configs/mst_upernet_swin_tiny_ade20k.py", 60),
    ):
        assert round(total(name) / 1e6) == millions, name
    vitdet = count_parts("det_configs/mst_vitdet_base_coco_100e.py")
    rpn = 2 * (256 * 256 * 9 + 256) + 256 * 15 + 15
    boxes = 4 * (256 * 256 * 9 + 512) + 49 * 256 * 1024 + 1024 + 1024 * 401 + 401
    masks = 4 * (256 * 256 * 9 + 512) + 256 * 256 * 4 + 256 + 256 * 80 + 80
    assert vitdet["rpn_head"] == rpn and vitdet["roi_head"] == boxes + masks


# ---- settings


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_starts_from_what_pretraining_writes(name: str):
    backbone = read(name).model.backbone
    work_dirs, run, file = Path(backbone.checkpoint).parts
    source = Config.fromfile(ROOT / "pretrain" / "configs" / f"{run}.py").model.backbone
    assert (work_dirs, file) == ("work_dirs", "teacher.safetensors")
    assert source.arch == backbone.arch and source.get("patch_size", 16) == 16


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_says_what_it_is(name: str):
    """Backbone, schedule, the figure or that there is none, and the command stand at the head of the file."""
    text = (ROOT / name).read_text()
    head = " ".join(line.removeprefix("#").strip() for line in text.split("_base_ =")[0].splitlines())
    assert "not measured here" in head and f"tools/dist_train.sh {name} 8" in head
    arch = read(name).model.backbone.arch
    assert {"vit_s": "ViT-S/16", "vit_b": "ViT-B/16", "swin_t": "Swin-T", "swin_s": "Swin-S"}[
        arch[: arch.index("_") + 2]
    ] in head


def test_cityscapes_is_cut_as_in_mmseg():
    ours = Config.fromfile(ROOT / "seg_configs" / "_base_" / "cityscapes_768x768.py")
    theirs = zoo("mmseg", "_base_/datasets/cityscapes_768x768.py")
    for split in ("train", "val", "test"):
        loader, reference = ours[f"{split}_dataloader"].dataset, theirs[f"{split}_dataloader"].dataset
        assert plain(loader.pipeline) == plain(reference.pipeline) and loader.data_prefix == reference.data_prefix


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("mst_maskrcnn_swin_tiny_coco.py", "swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py"),
        ("mst_maskrcnn_swin_tiny_coco_3x.py", "swin/mask-rcnn_swin-t-p4-w7_fpn_ms-crop-3x_coco.py"),
        ("mst_maskrcnn_swin_small_coco_3x.py", "swin/mask-rcnn_swin-s-p4-w7_fpn_amp-ms-crop-3x_coco.py"),
    ],
)
def test_swin_detectors_have_the_settings_of_mmdets_zoo(ours: str, theirs: str):
    cfg, reference = read(f"det_configs/{ours}"), zoo("mmdet", theirs)
    for key in ("train_cfg", "param_scheduler", "auto_scale_lr"):
        assert plain(cfg[key]) == plain(reference[key]), key
    assert plain(cfg.train_dataloader.dataset.pipeline) == plain(reference.train_dataloader.dataset.pipeline)
    assert plain(cfg.optim_wrapper.optimizer) == plain(reference.optim_wrapper.optimizer)
    assert cfg.optim_wrapper.paramwise_cfg.layer_decay_rate == 1.0
    assert cfg.model.backbone.drop_path_rate == reference.model.backbone.drop_path_rate
    for part in ("neck", "rpn_head", "roi_head", "train_cfg", "test_cfg", "data_preprocessor"):
        assert plain(cfg.model[part]) == plain(reference.model[part]), part


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("mst_setr_naive_vit_small_cityscapes.py", "setr/setr_vit-l_naive_8xb1-80k_cityscapes-768x768.py"),
        ("mst_setr_mla_vit_small_cityscapes.py", "setr/setr_vit-l_mla_8xb1-80k_cityscapes-768x768.py"),
        ("mst_setr_naive_vit_small_ade20k.py", "setr/setr_vit-l_naive_8xb2-160k_ade20k-512x512.py"),
        ("mst_setr_pup_vit_small_ade20k.py", "setr/setr_vit-l_pup_8xb2-160k_ade20k-512x512.py"),
        ("mst_setr_mla_vit_small_ade20k.py", "setr/setr_vit-l_mla_8xb2-160k_ade20k-512x512.py"),
    ],
)
def test_setr_has_the_settings_of_mmsegs_zoo(ours: str, theirs: str):
    cfg, reference = read(f"seg_configs/{ours}"), zoo("mmseg", theirs)
    for key in ("train_cfg", "param_scheduler", "optim_wrapper"):
        assert plain(cfg[key]) == plain(reference[key]), key
    loader, theirs_loader = cfg.train_dataloader, reference.train_dataloader
    assert loader.batch_size == theirs_loader.batch_size == cfg.auto_scale_lr.base_batch_size // 8
    assert plain(loader.dataset.pipeline) == plain(theirs_loader.dataset.pipeline)
    assert plain(cfg.model.test_cfg) == plain(reference.model.test_cfg)

    def heads(model):
        parts = [model.decode_head, *model.auxiliary_head, *([model.neck] if "neck" in model else [])]
        width = 384 if "mst_transfer" in model.backbone.type else 1024
        named = [plain(part) for part in parts]
        for part in named:
            if part.get("act_cfg") == {"type": "ReLU"}:
                del part["act_cfg"]  # the default
            if part.get("num_convs") == 0:
                part.pop("norm_cfg", None)  # of no convolution
            part["type"] = part["type"].removeprefix("mst_transfer.")  # ours: the same head, quicker
            if part["type"] == "SETRUPHead":
                part.setdefault("up_scale", 4)  # the default
        return json.loads(json.dumps(named).replace(str(width), '"width"'))

    assert heads(cfg.model) == heads(reference.model)


def test_upernet_has_the_settings_of_mmsegs_zoo():
    for ours, theirs in (
        ("mst_upernet_vit_base_ade20k.py", "mae/mae-base_upernet_8xb2-amp-160k_ade20k-512x512.py"),
        (
            "mst_upernet_swin_tiny_ade20k.py",
            "swin/swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512.py",
        ),
    ):
        cfg, reference = read(f"seg_configs/{ours}"), zoo("mmseg", theirs)
        for key in ("train_cfg", "param_scheduler"):
            assert plain(cfg[key]) == plain(reference[key]), (ours, key)
        assert plain(cfg.optim_wrapper.optimizer) == plain(reference.optim_wrapper.optimizer)
        assert plain(cfg.model.decode_head) == plain(reference.model.decode_head)
        assert cfg.model.backbone.drop_path_rate == reference.model.backbone.drop_path_rate
        assert cfg.train_dataloader.batch_size * 8 == cfg.auto_scale_lr.base_batch_size == 16
        rate = reference.optim_wrapper.paramwise_cfg.get("layer_decay_rate", 1.0)
        assert cfg.optim_wrapper.paramwise_cfg.layer_decay_rate == rate


def test_vitdet_has_the_numbers_of_detectron2():
    """The values of its ``mask_rcnn_vitdet_b_100ep`` and ``coco_loader_lsj``, written down here."""
    cfg = read("det_configs/mst_vitdet_base_coco_100e.py")
    assert (cfg.train_cfg.max_iters, cfg.auto_scale_lr.base_batch_size) == (184375, 64)
    warm_up, steps = cfg.param_scheduler
    assert (warm_up.end, warm_up.start_factor, steps.milestones) == (250, 0.001, [163889, 177546])
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.lr, optimizer.weight_decay, tuple(optimizer.betas)) == (1e-4, 0.1, (0.9, 0.999))
    assert cfg.optim_wrapper.paramwise_cfg.layer_decay_rate == 0.7
    assert (cfg.model.backbone.window_size, cfg.model.backbone.drop_path_rate) == (14, 0.1)
    assert build_meta_model(cfg).backbone.global_blocks == (2, 5, 8, 11)
    resize = next(step for step in cfg.train_dataloader.dataset.pipeline if step.type == "RandomResize")
    assert (resize.scale, resize.ratio_range) == ((1024, 1024), (0.1, 2.0))


# ---- the table


@functools.cache
def table() -> dict[str, list[str]]:
    """The rows of docs/recipes.md by config."""
    rows = {}
    for line in (ROOT / "docs" / "recipes.md").read_text().splitlines():
        if line.startswith("| `mst_"):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            rows[cells[0].strip("`")] = cells
    return rows


def test_the_table_has_every_recipe():
    assert sorted(table()) == sorted(Path(name).name for name in RECIPES)
    assert {cells[-1] for cells in table().values()} == {"–"}  # nothing was measured here


@pytest.mark.parametrize("name", RECIPES)
def test_the_table_says_what_the_recipe_is(name: str):
    cfg = read(name)
    _, _, _, schedule, batch, lr, millions, shape, macs, _, _ = table()[Path(name).name]
    optimizer = cfg.optim_wrapper.optimizer
    assert (int(batch), lr) == (cfg.auto_scale_lr.base_batch_size, f"{optimizer.type} {optimizer.lr:g}")
    length = cfg.train_cfg.get("max_epochs") or cfg.train_cfg.max_iters
    assert schedule.split()[0] in (str(length), f"{length // 1000}k", "100" if length == 184375 else "")
    parameters = sum(value for part, value in count_parts(name).items() if part not in ("vit", "last_norm"))
    assert millions == f"{parameters / 1e6:.1f}"
    if "vit_small" in name:  # one backbone is enough to see that they are current
        found = measure(cfg, name)
        assert (shape, macs) == (f"{found.shape[0]}×{found.shape[1]}", f"{found.macs / 1e9:.1f}")


# ---- a step of a small copy


def shrink(cfg: Config) -> Config:
    """The recipe with few channels, blocks, classes and pixels."""
    model = cfg.model
    backbone = model.backbone
    backbone.checkpoint = None
    if backbone.type.endswith("Swin"):
        widths = {96 * 2**stage: SWIN_WIDTH * 2**stage for stage in range(4)}
        small = dict(
            arch="swin_tiny_patch4_window7_224", embed_dim=SWIN_WIDTH, depths=(1, 1, 2, 1), num_heads=(1, 2, 4, 8)
        )
        small["window_size"] = 4
    else:
        widths = {384: VIT_WIDTH, 768: VIT_WIDTH}
        small = dict(arch="vit_tiny_patch16_224", img_size=64, embed_dim=VIT_WIDTH, depth=4, num_heads=3)
        if "window_size" in backbone:
            small["window_size"] = 2
    backbone.update(small)
    preprocessor = model.data_preprocessor
    if "size" in preprocessor:
        preprocessor.size = (64, 64)
    if preprocessor.get("pad_size_divisor") == 1024:
        preprocessor.pad_size_divisor = 128
    if model.get("test_cfg", {}).get("mode") == "slide":
        model.test_cfg.update(crop_size=(64, 64), stride=(40, 40))
    for key, node in model.items():
        if key != "backbone":
            narrow(node, widths)
            make_fewer(node)
    return cfg


def make_fewer(node) -> None:
    """Few classes, proposals and samples."""
    if isinstance(node, list | tuple):
        for child in node:
            make_fewer(child)
    if not isinstance(node, dict):
        return
    for key, value in node.items():
        if key == "num_classes":
            node[key] = NUM_CLASSES
        elif key in ("nms_pre", "max_per_img"):
            node[key] = 60
        elif key == "sampler":
            value["num"] = 32
        else:
            make_fewer(value)


def detection_samples(height: int, width: int) -> list:
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks
    from mmengine.structures import InstanceData

    samples = []
    for _ in range(2):
        size = (height, width)
        sample = DetDataSample(metainfo=dict(img_shape=size, ori_shape=size, scale_factor=(1.0, 1.0)))
        masks = np.zeros((2, height, width), np.uint8)
        masks[0, 10:60, 10:50], masks[1, 20:60, 60:90] = 1, 1
        boxes = torch.tensor([[10.0, 10, 50, 60], [60, 20, 90, 60]])
        sample.gt_instances = InstanceData(
            bboxes=boxes, labels=torch.tensor([1, 4]), masks=BitmapMasks(masks, height, width)
        )
        sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long))
        samples.append(sample)
    return samples


def segmentation_samples(height: int, width: int) -> list:
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    samples = []
    for _ in range(2):
        sample = SegDataSample(metainfo=dict(img_shape=(height, width), ori_shape=(height, width)))
        sample.gt_sem_seg = PixelData(data=torch.randint(0, NUM_CLASSES, (1, height, width)))
        samples.append(sample)
    return samples


@functools.cache
def take_a_step(scope: str, model_text: str, optimizer_text: str) -> dict[str, float]:
    """Trains a step, predicts, and returns the losses. Texts are JSON, so that equal copies are taken once."""
    torch.manual_seed(0)
    init_default_scope(scope)
    registry = __import__(f"{scope}.registry", fromlist=["MODELS"]).MODELS
    model = registry.build(Config(dict(model=json.loads(model_text))).model).train()
    wrapper = build_optim_wrapper(model, json.loads(optimizer_text))
    wrapper.zero_grad = lambda **options: None  # so that the gradients of the step can be looked at
    height, width = (64, 96) if scope == "mmdet" else (60, 64)
    samples = detection_samples(height, width) if scope == "mmdet" else segmentation_samples(height, width)
    images = [torch.randint(0, 256, (3, height, width), dtype=torch.uint8) for _ in samples]
    losses = model.train_step(dict(inputs=images, data_samples=samples), wrapper)
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert [name for name, parameter in trained.items() if parameter.grad is None] == []  # DistributedDataParallel
    assert {name for name, parameter in trained.items() if not parameter.isfinite().all()} == set()
    frozen = {name for name, _ in model.named_parameters()} - set(trained)
    assert all(name.startswith("backbone.") for name in frozen)
    (result,) = model.eval().test_step(dict(inputs=images[:1], data_samples=samples[:1]))
    if scope == "mmdet":
        assert result.pred_instances.masks.shape[-2:] == (height, width)
    else:
        assert result.pred_sem_seg.data.shape == (1, height, width)
        assert result.seg_logits.data.shape == (NUM_CLASSES, height, width)
    return {name: float(value.detach()) for name, value in losses.items()} | {"frozen": len(frozen)}


@pytest.mark.parametrize("name", RECIPES)
def test_a_small_copy_trains_a_step_and_predicts(name: str):
    cfg = shrink(read(name))
    adapt_to_devices(cfg, world_size=1, on_cuda=False)
    cfg.optim_wrapper.pop("loss_scale", None)
    losses = take_a_step(cfg.default_scope, json.dumps(cfg.model.to_dict()), json.dumps(cfg.optim_wrapper.to_dict()))
    assert all(np.isfinite(value) for value in losses.values())
    if "cascade" in name:
        assert {f"s{stage}.loss_{kind}" for stage in range(3) for kind in ("cls", "bbox", "mask")} <= set(losses)
    elif name.startswith("det"):
        assert {"loss_rpn_cls", "loss_rpn_bbox", "loss_cls", "loss_bbox", "loss_mask"} <= set(losses)
    else:
        assert "decode.loss_ce" in losses
    assert (losses["frozen"] > 0) == ("linear" in name)


# ---- data


@pytest.fixture(scope="module")
def sample_data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    make_sample_data(folder, SampleDataRequest(num_train=4, num_val=2, num_photos=1, size=96))
    return folder


@pytest.mark.parametrize("name", ["mst_maskrcnn_swin_tiny_coco_3x", "mst_vitdet_base_coco_100e"])
def test_augmentations_of_coco_go_through(name: str, sample_data: Path):
    from mmdet.registry import DATASETS, MODELS

    init_default_scope("mmdet")
    cfg = read(f"det_configs/{name}.py")
    sample = Config.fromfile(ROOT / "det_configs" / "mst_maskrcnn_sample.py").train_dataloader.dataset
    dataset = dict(cfg.train_dataloader.dataset, ann_file=sample.ann_file, data_prefix=sample.data_prefix)
    data = DATASETS.build(dict(dataset, data_root=str(sample_data / "coco"), metainfo=sample.metainfo, filter_cfg=None))
    np.random.seed(0)
    torch.manual_seed(0)
    preprocessor = MODELS.build(cfg.model.data_preprocessor)
    for index in range(4):
        item = data[index % len(data)]
        height, width = item["inputs"].shape[-2:]
        batch = preprocessor(dict(inputs=[item["inputs"]], data_samples=[item["data_samples"]]), training=True)
        masks = batch["data_samples"][0].gt_instances.masks
        if "vitdet" in name:
            assert max(height, width) <= 1024 and batch["inputs"].shape[-2:] == (1024, 1024)
            assert (masks.height, masks.width) == (1024, 1024)
        else:
            assert 384 <= max(height, width) <= 1333 and {side % 32 for side in batch["inputs"].shape[-2:]} == {0}


@pytest.fixture(scope="module")
def ade20k(tmp_path_factory) -> Path:
    """A miniature in ADE20K's layout: six images a set whose masks hold every value from 0 to 150."""
    import cv2

    root = tmp_path_factory.mktemp("ade_root")
    for split in ("training", "validation"):
        for kind in ("images", "annotations"):
            (root / "ade" / "ADEChallengeData2016" / kind / split).mkdir(parents=True)
        for index in range(6):
            folder = root / "ade" / "ADEChallengeData2016"
            mask = (np.arange(40 * 60).reshape(40, 60) % 151).astype(np.uint8)
            cv2.imwrite(str(folder / "images" / split / f"{index}.jpg"), np.full((40, 60, 3), 128, np.uint8))
            cv2.imwrite(str(folder / "annotations" / split / f"{index}.png"), mask)
    return root


ADE = [name for name in RECIPES if "ade20k" in name]


@pytest.mark.parametrize("name", ADE)
def test_ade20k_has_150_classes_and_ignores_the_zero(name: str):
    cfg = read(name)
    heads = [cfg.model.decode_head, *np.atleast_1d(cfg.model.get("auxiliary_head") or [])]
    assert {head["num_classes"] for head in heads} == {150}
    pipelines = [cfg[f"{split}_dataloader"].dataset.pipeline for split in ("train", "val", "test")]
    pipelines.append([step for steps in cfg.tta_pipeline[1].transforms for step in steps])
    for pipeline in pipelines:
        assert [step.reduce_zero_label for step in pipeline if step.type == "LoadAnnotations"] == [True]


def test_ade20ks_masks_become_classes_in_every_pipeline(ade20k: Path, monkeypatch: pytest.MonkeyPatch):
    from mmseg.registry import DATASETS

    from mst_transfer.engine.testing import with_augmentation
    from mst_transfer.preflight.check import check_datasets

    monkeypatch.setenv("MST_DATA_ROOT", str(ade20k))
    cfg = Config.fromfile(ROOT / "seg_configs" / "mst_upernet_vit_small_ade20k.py")
    check_datasets(cfg)
    init_default_scope("mmseg")
    validation = DATASETS.build(cfg.val_dataloader.dataset)
    assert len(validation) == 6 and len(validation.metainfo["classes"]) == 150
    expected = (np.arange(40 * 60).reshape(40, 60) % 151).astype(np.int64) - 1
    expected[expected < 0] = 255
    assert np.array_equal(validation[0]["data_samples"].gt_sem_seg.data[0].numpy(), expected)
    training = DATASETS.build(cfg.train_dataloader.dataset)[0]
    assert set(training["data_samples"].gt_sem_seg.data.unique().tolist()) <= {*range(150), 255}
    augmented = DATASETS.build(with_augmentation(cfg).test_dataloader.dataset)[0]
    assert len(augmented["inputs"]) == 12 and augmented["data_samples"][1].flip
    assert [tuple(image.shape[-2:]) for image in augmented["inputs"][::4]] == [(256, 384), (512, 768), (768, 1152)]
    for sample in augmented["data_samples"]:
        assert np.array_equal(sample.gt_sem_seg.data[0].numpy(), expected)


def test_masks_that_are_not_ade20ks_are_refused(ade20k: Path, monkeypatch: pytest.MonkeyPatch):
    import cv2

    from mst_transfer.preflight.check import check_datasets

    monkeypatch.setenv("MST_DATA_ROOT", str(ade20k))
    cfg = Config.fromfile(ROOT / "seg_configs" / "mst_upernet_vit_small_ade20k.py")
    path = ade20k / "ade" / "ADEChallengeData2016" / "annotations" / "training" / "0.png"
    before = path.read_bytes()
    cv2.imwrite(str(path), np.full((40, 60), 151, np.uint8))
    with pytest.raises(ValueError, match=r"151"):
        check_datasets(cfg)
    path.write_bytes(before)
    cfg.model.decode_head.num_classes = 151
    with pytest.raises(ValueError, match=r"num_classes=151.*150"):
        check_datasets(cfg)
    monkeypatch.setenv("MST_DATA_ROOT", str(ade20k / "nowhere"))
    with pytest.raises(FileNotFoundError, match="ADEChallengeData2016"):
        check_datasets(Config.fromfile(ROOT / "seg_configs" / "mst_linear_vit_small_ade20k.py"))
