"""Any backbone in any recipe: widths, patch size, blocks and strides follow, and what does not fit is refused."""

import itertools
from pathlib import Path

import pytest
import torch
from small_vit import SMALL, make_metadata, make_vit

from mst_transfer.checkpoint import save_backbone
from mst_transfer.cli.main import main
from mst_transfer.engine.check_model import check_model
from mst_transfer.engine.plan.complexity import measure
from mst_transfer.engine.plan.meta_model import build_meta_model
from mst_transfer.engine.run import load_run_config

ROOT = Path(__file__).resolve().parents[4]
VITDET, FPN = "det_configs/mst_vitdet_small_coco_100e.py", "det_configs/mst_maskrcnn_coco.py"


def read(name, **backbone):
    given = {"checkpoint": None, **backbone}
    known = {key: "" if key in ("arch", "checkpoint") else "+" for key in given}
    options = {f"{known[key]}model.backbone.{key}": value for key, value in given.items()}
    return load_run_config(str(ROOT / name), cfg_options=options)


HEADS = (
    FPN,
    VITDET,
    "det_configs/mst_cascade_maskrcnn_vit_small_coco.py",
    "seg_configs/mst_setr_pup_cityscapes.py",
    "seg_configs/mst_setr_naive_vit_base_ade20k.py",
    "seg_configs/mst_setr_mla_vit_small_ade20k.py",
    "seg_configs/mst_upernet_vit_small_cityscapes.py",
    "seg_configs/mst_linear_vit_small_ade20k.py",
)
TINY, BASE, SWIN_BASE = "vit_tiny_patch16_224", "vit_base_patch14_reg4_dinov2", "swin_base_patch4_window12_384"
SHAPES = {TINY: {}, BASE: dict(depth=8), SWIN_BASE: dict(depths=(1, 1, 2, 1))}
SWIN = ("det_configs/mst_cascade_maskrcnn_swin_tiny_coco_3x.py", "seg_configs/mst_upernet_swin_tiny_cityscapes.py")


@pytest.mark.parametrize(
    ("recipe", "arch"),
    [
        *itertools.product(HEADS, [TINY, BASE]),
        *itertools.product([FPN, "seg_configs/mst_upernet_vit_small_cityscapes.py", *SWIN], [SWIN_BASE]),
        *itertools.product(SWIN, [TINY]),
    ],
)
def test_any_backbone_goes_into_any_recipe(recipe, arch):
    cfg = read(recipe, arch=arch, **SHAPES[arch])
    check_model(cfg, begins=False)
    measure(cfg, shape=(224, 224))  # through all heads; a wrong width is an error of the convolution
    model = build_meta_model(cfg)
    if cfg.model.get("auxiliary_head"):
        maps = model.backbone(torch.empty(1, 3, 224, 224, device="meta"))
        maps = model.neck(maps) if model.with_neck else maps
        heads = model.auxiliary_head
        for head in heads if isinstance(heads, torch.nn.ModuleList) else [heads]:
            head(maps)
    if arch != SWIN_BASE:
        assert len(model.backbone.vit.blocks) == model.backbone.out_indices[-1] + 1 == SHAPES[arch].get("depth", 12)
        assert model.backbone.embed_dim == (192 if arch == TINY else 768)
    if "vitdet" in recipe:
        assert model.backbone.global_blocks == ((2, 5, 8, 11) if arch == TINY else (1, 3, 5, 7))
    if "linear" in recipe:
        assert not any(p.requires_grad for p in model.backbone.vit.blocks.parameters())


@pytest.mark.parametrize(
    ("recipe", "change"),
    [
        (VITDET, {"neck.patch_size": 8}),
        (VITDET, {"neck.strides": (8, 16, 32, 64)}),
        (FPN, {"rpn_head.anchor_generator.strides": [8, 16, 32, 64, 128]}),
        (FPN, {"roi_head.bbox_roi_extractor.featmap_strides": [8, 16, 32, 64]}),
        (FPN, {"neck.num_outs": 4}),
        ("det_configs/mst_maskrcnn_swin_tiny_coco.py", {"backbone.out_indices": (1, 2, 3)}),
        ("det_configs/mst_maskrcnn_swin_tiny_coco.py", {"backbone.patch_size": 2}),
        (FPN, {"neck.in_channels": [384] * 3}),
        ("seg_configs/mst_setr_pup_cityscapes.py", {"backbone.out_indices": (5, 11)}),
        ("seg_configs/mst_setr_pup_cityscapes.py", {"backbone.arch": "swin_tiny_patch4_window7_224"}),
    ],
)
def test_what_does_not_fit_is_refused(recipe, change):
    cfg = read(recipe)
    check_model(cfg, begins=False)
    cfg.merge_from_dict({f"model.{name}": value for name, value in change.items()})
    with pytest.raises(ValueError, match="out_indices|strides|TimmSwin"):
        check_model(cfg, begins=False)


def test_a_checkpoint_of_another_width(tmp_path):
    path = tmp_path / "teacher.safetensors"
    save_backbone(path, make_vit(depth=4).state_dict(), make_metadata(arch_kwargs=SMALL | dict(depth=4)))
    with pytest.raises(ValueError, match=r"(?s)width 24.*width 384.*--cfg-options model.backbone.arch=None"):
        check_model(read(FPN, checkpoint=str(path)), begins=True)
    cfg = read(FPN, checkpoint=str(path), arch=None)
    check_model(cfg, begins=True)
    assert list(cfg.model.neck.in_channels) == [24] * 4 and cfg.model.backbone.patch_size == 8


def test_a_missing_checkpoint_and_another_normalisation_are_refused(tmp_path, saved):
    with pytest.raises(FileNotFoundError, match="--cfg-options model.backbone.checkpoint=PATH, or .*=None"):
        check_model(read(FPN, checkpoint=str(tmp_path / "absent.safetensors")), begins=True)
    cfg = read(FPN, checkpoint=str(saved[1]), arch=None)
    cfg.model.data_preprocessor.mean = [0, 0, 0]
    with pytest.raises(
        ValueError, match=rf"data_preprocessor.mean=\[0, 0, 0\].*\[{255 * make_metadata().mean[0]:.3f}, "
    ):
        check_model(cfg, begins=True)


def test_what_fits_stays_as_it_was_written(capsys):
    plain = read(FPN).model
    assert capsys.readouterr().out == ""
    assert plain.backbone.arch == "vit_small_patch16_224" and plain.neck.in_channels == [384] * 4


@pytest.mark.parametrize("words", [["check"], ["train", "--check-only"], ["test", "none.pth", "--check-only"]])
def test_the_commands_look_at_the_model_before_a_run(words, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("mst_transfer.preflight.check.inspect_datasets", lambda *_: ([], []))
    (tmp_path / "none.pth").touch()
    words = [str(tmp_path / word) if word == "none.pth" else word for word in words]
    command = [words[0], str(ROOT / VITDET), *words[1:], "--cfg-options", "model.backbone.checkpoint=None"]
    assert main(command) == 0
    assert main([*command, "model.rpn_head.anchor_generator.strides=[8,16,32,64,128]"]) == 1
    assert "prior_generator has strides [8, 16, 32, 64, 128]" in capsys.readouterr().err


def test_positions_are_of_whole_patches(capsys):
    recipe = "seg_configs/mst_linear_vit_small_ade20k.py"
    cfg = read(recipe, arch="vit_small_patch14_reg4_dinov2")
    assert cfg.model.backbone.img_size == (518, 518) and "whole patches of 14 px" in capsys.readouterr().out
    assert build_meta_model(cfg).backbone.vit.pos_embed.shape == (1, 37 * 37, 384)  # the grid of an image of 512 px
    assert read(recipe).model.backbone.img_size == (512, 512)
