"""Full-scale recipes: sizes from definitions, settings from the model zoos, and the table of them all."""

import functools
import json
from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config
from recipes import RECIPES, ROOT, full_scale, read

from mst_transfer.engine.plan.complexity import measure


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


def dinov2_parameters(width: int, grid: int) -> int:
    """The same with patches of 14, LayerScale, and four registers, which have no position, nor has the class token."""
    more = 12 * 2 * width + 4 * width - width - 3 * (256 - 196) * width
    return vit_parameters(width, grid) + more


def dinov3_parameters(width: int, grid: int) -> int:
    """The same with LayerScale and four registers, without positions and biases of queries, keys and values."""
    return vit_parameters(width, grid) + 12 * 2 * width + 4 * width - (grid * grid + 1) * width - 12 * 3 * width


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
    "vit_small_patch14_reg4_dinov2": lambda grid: dinov2_parameters(384, grid),
    "vit_small_patch16_dinov3": lambda grid: dinov3_parameters(384, grid),
    "swin_tiny_patch4_window7_224": lambda grid: swin_parameters(96, (2, 2, 6, 2), 3),
    "swin_small_patch4_window7_224": lambda grid: swin_parameters(96, (2, 2, 18, 2), 3),
}


def count(module: Any) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@functools.cache
def count_parts(name: str) -> dict[str, int]:
    model = full_scale(name)
    counts = {part: count(module) for part, module in model.named_children()}
    vit = model.backbone.vit
    counts["vit"] = sum(p.numel() for key, p in vit.named_parameters() if not key.startswith(("norm.", "fc_norm.")))
    counts["last_norm"] = sum(p.numel() for key, p in vit.named_parameters() if key.startswith("norm."))
    return counts


@pytest.mark.parametrize("name", RECIPES)
def test_backbones_have_the_parameters_of_their_definition(name: str):
    backbone = read(name).model.backbone
    side = backbone.get("img_size", 518 if "dinov2" in backbone.arch else 224)
    grid = (side if isinstance(side, int) else side[0]) // (14 if "patch14" in backbone.arch else 16)
    counts = count_parts(name)
    found = counts["vit"] + (counts["last_norm"] if backbone.type.endswith("Swin") else 0)
    if backbone.get("window_size"):  # the class token stands in no window and is left out, and so are registers
        found += (384 if "small" in backbone.arch else 768) * (5 if "dino" in backbone.arch else 1)
    assert found == BACKBONES[backbone.arch](grid)


def test_heads_have_the_parameters_of_their_definition():
    def total(name: str) -> int:
        return sum(value for part, value in count_parts(name).items() if part not in ("vit", "last_norm"))

    linear = count_parts("seg_configs/mst_linear_vit_base_ade20k.py")
    assert linear["decode_head"] == 768 * 150 + 150
    naive = count_parts("seg_configs/mst_setr_naive_vit_small_cityscapes.py")
    head = 2 * 384 + 384 * 256 + 2 * 256 + 256 * 19 + 19
    assert naive["decode_head"] == head and naive["auxiliary_head"] == 3 * head
    pup, part = count_parts("seg_configs/mst_setr_pup_cityscapes.py"), lambda inputs: inputs * 256 * 9 + 2 * 256
    assert pup["decode_head"] == 2 * 384 + part(384) + 3 * part(256) + 256 * 19 + 19
    assert pup["auxiliary_head"] == 3 * (2 * 384 + part(384) + part(256) + 256 * 19 + 19)
    detector = full_scale("det_configs/mst_maskrcnn_coco.py")
    assert count(detector.backbone.pyramid) == 3 * (384 * 384 * 2 * 2 + 384) + 2 * 384
    assert count(detector.neck) == 4 * (384 * 256 + 256) + 4 * (256 * 256 * 9 + 256)
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
        ("mst_upernet_vit_base_ade20k.py", "mae/mae-base_upernet_8xb2-amp-160k_ade20k-512x512.py"),
        (
            "mst_upernet_swin_tiny_ade20k.py",
            "swin/swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512.py",
        ),
    ],
)
def test_settings_are_those_of_the_zoos(ours: str, theirs: str):
    kind = "seg" if "upernet" in ours else "det"
    cfg, reference = read(f"{kind}_configs/{ours}"), zoo(f"mm{kind}", theirs)
    for key in ("train_cfg", "param_scheduler", *(["auto_scale_lr"] if kind == "det" else [])):
        assert plain(cfg[key]) == plain(reference[key]), key
    assert plain(cfg.optim_wrapper.optimizer) == plain(reference.optim_wrapper.optimizer)
    rate = reference.optim_wrapper.paramwise_cfg.get("layer_decay_rate", 1.0)
    assert cfg.optim_wrapper.paramwise_cfg.layer_decay_rate == rate
    assert cfg.model.backbone.drop_path_rate == reference.model.backbone.drop_path_rate
    parts = ["neck", "rpn_head", "roi_head", "train_cfg", "test_cfg", "data_preprocessor"]
    for part in parts if kind == "det" else ["decode_head"]:
        assert plain(cfg.model[part]) == plain(reference.model[part]), part
    if kind == "det":
        assert plain(cfg.train_dataloader.dataset.pipeline) == plain(reference.train_dataloader.dataset.pipeline)
    else:
        assert cfg.train_dataloader.batch_size * 8 == cfg.auto_scale_lr.base_batch_size == 16


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("mst_setr_pup_cityscapes.py", "setr/setr_vit-l_pup_8xb1-80k_cityscapes-768x768.py"),
        ("mst_setr_naive_vit_small_cityscapes.py", "setr/setr_vit-l_naive_8xb1-80k_cityscapes-768x768.py"),
        ("mst_setr_mla_vit_small_cityscapes.py", "setr/setr_vit-l_mla_8xb1-80k_cityscapes-768x768.py"),
        ("mst_setr_naive_vit_small_ade20k.py", "setr/setr_vit-l_naive_8xb2-160k_ade20k-512x512.py"),
        ("mst_setr_pup_vit_small_ade20k.py", "setr/setr_vit-l_pup_8xb2-160k_ade20k-512x512.py"),
        ("mst_setr_mla_vit_small_ade20k.py", "setr/setr_vit-l_mla_8xb2-160k_ade20k-512x512.py"),
    ],
)
def test_setr_has_the_settings_of_mmsegs_zoo(ours: str, theirs: str):
    cfg, reference = read(f"seg_configs/{ours}"), zoo("mmseg", theirs)
    assert cfg.param_scheduler[-1].end == cfg.train_cfg.max_iters
    halved = cfg.train_cfg.max_iters == 40000  # the paper's 40k iterations; the zoo has 80k and more
    for key in ("optim_wrapper", *(() if halved else ("train_cfg", "param_scheduler"))):
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


def test_the_vit_detector_has_the_1x_schedule_of_mmdet():
    cfg, reference = read("det_configs/mst_maskrcnn_coco.py"), zoo("mmdet", "_base_/schedules/schedule_1x.py")
    for key in ("train_cfg", "param_scheduler", "auto_scale_lr"):
        assert plain(cfg[key]) == plain(reference[key]), key


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
    assert full_scale("det_configs/mst_vitdet_base_coco_100e.py").backbone.global_blocks == (2, 5, 8, 11)
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
        found = measure(cfg)
        assert (shape, macs) == (f"{found.shape[0]}×{found.shape[1]}", f"{sum(found.macs.values()) / 1e9:.1f}")
