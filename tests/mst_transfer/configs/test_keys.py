"""Misspelt config keys and option paths are refused; what configs legitimately do is not."""

import inspect
from pathlib import Path

import mmdet
import mmseg
import pytest
from mmengine.config import Config
from mmengine.runner import Runner

from mst_transfer.configs.keys import (
    UnknownConfigKeyError,
    check_cfg_options,
    check_config,
    runner_keys,
)


def write(folder: Path, text: str, name: str = "config.py") -> Config:
    path = folder / name
    path.write_text(text)
    return Config.fromfile(str(path))


def test_a_misspelt_key_is_refused_with_the_nearest_one(tmp_path: Path) -> None:
    """Also one of a base."""
    write(tmp_path, "optim_wraper = dict()\n", "base.py")
    cfg = write(tmp_path, "_base_ = 'base.py'\nmodel = dict()\ntrian_cfg = dict(max_epochs=3)\n")
    with pytest.raises(UnknownConfigKeyError, match=r"'trian_cfg' \(did you mean 'train_cfg'\?\)") as refusal:
        check_config(cfg)
    assert all(word in str(refusal.value) for word in ("config.py", "'optim_wraper' (did you mean 'optim_wrapper'?)"))
    with pytest.raises(UnknownConfigKeyError, match="built in code"):
        check_config(Config(dict(model=dict(), lunch=1)))


OWN = """
_base_ = 'base.py'
_private = 1
epochs = 3
listed = 4
allowed_keys = ['listed']
train_cfg = dict(max_epochs=epochs, val_interval=_base_.steps, a='{{_base_.width}}')
val_cfg = dict(b={{_base_.height}})
"""


def test_helper_variables_are_accepted(tmp_path: Path) -> None:
    write(tmp_path, "steps = 7\nwidth = 3\nheight = 4\n", "base.py")
    check_config(write(tmp_path, OWN))


@pytest.mark.parametrize(
    ("library", "name"),
    [
        (mmdet, "mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py"),
        (mmdet, "grounding_dino/grounding_dino_swin-t_finetune_16xb2_1x_coco.py"),
        (mmdet, "rtmdet/rtmdet-ins_s_8xb32-300e_coco.py"),
        (mmdet, "soft_teacher/soft-teacher_faster-rcnn_r50-caffe_fpn_180k_semi-0.1-coco.py"),
        (mmseg, "setr/setr_vit-l_pup_8xb1-80k_cityscapes-768x768.py"),
        (mmseg, "mask2former/mask2former_r50_8xb2-90k_cityscapes-512x1024.py"),
    ],
)
def test_the_libraries_own_configs_are_accepted(library, name: str, tmp_path: Path) -> None:
    """Also as a base, which may define what it does not read."""
    check_config(Config.fromfile(str(Path(library.__file__).parent / ".mim" / "configs" / name)))
    check_config(write(tmp_path, f"_base_ = '{library.__name__}::{name}'\n"))


CFG = dict(
    model=dict(backbone=dict(depth=4)),
    optim_wrapper=dict(optimizer=dict(lr=0.1, weight_decay=0.0)),
    param_scheduler=[dict(begin=0), dict(begin=3)],
)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("optm.lr", r"the top level of the config has no 'optm' \(did you mean 'optim_wrapper'\?\)"),
        ("optim_wrapper.optimizer.rl", r"'optim_wrapper.optimizer' has no 'rl' \(did you mean 'lr'\?\)"),
        ("optim_wrapper.optimizer.lr.x", r"'optim_wrapper.optimizer.lr' has no 'x'"),
        ("param_scheduler.2.begin", r"'param_scheduler' has no '2'"),
        ("optim_wrapper.clip_grad", r"\+optim_wrapper.clip_grad=\.\.\. to add"),
    ],
)
def test_an_unknown_path_is_refused(option: str, message: str) -> None:
    with pytest.raises(UnknownConfigKeyError, match=message):
        check_cfg_options(Config(CFG), {option: 1})


def test_known_paths_and_explicit_additions_are_applied() -> None:
    """Additions also inside an item of a list."""
    cfg = Config(CFG)
    options = {"model.backbone.depth": 6, "param_scheduler.1.begin": 5, "randomness.seed": 3}
    options |= {"+optim_wrapper.clip_grad.max_norm": 1.0, "+param_scheduler.1.new.interval": 1}
    cfg.merge_from_dict(check_cfg_options(cfg, options))
    assert cfg.model.backbone.depth == 6 and cfg.param_scheduler[1] == dict(begin=5, new=dict(interval=1))
    assert cfg.randomness.seed == 3 and cfg.optim_wrapper.clip_grad.max_norm == 1.0


@pytest.mark.parametrize("option", ["+default.hooks.2.type", "+default.hooks.2", "+default.hooks.x"])
def test_an_item_beyond_a_list_is_refused(option: str) -> None:
    """mmengine raises a KeyError, which reads as a fault of ours."""
    cfg = Config(dict(default=dict(hooks=[dict(type="A"), dict(type="B")])))
    with pytest.raises(UnknownConfigKeyError, match="'default.hooks' is a list of 2 items"):
        check_cfg_options(cfg, {option: 1})


HELPERS = """
data_root = "data/x/"
crop_size = (32, 32)
max_epochs = 3
norm_cfg = dict(type="BN")
lone = 3
optimizer = dict(type="SGD", lr=0.1)
_dataset = dict(data_root=data_root, a=1)
train_pipeline = [dict(type="Crop", crop_size=crop_size)]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline, b=2, **_dataset))
val_evaluator = dict(ann_file=data_root + "val.json")
model = dict(neck=dict(norm_cfg=norm_cfg), data_preprocessor=dict(size=crop_size))
optim_wrapper = dict(optimizer=optimizer)
train_cfg = dict(max_epochs=max_epochs, val_interval=lone + 1)
"""


@pytest.mark.parametrize(
    ("option", "paths"),
    [
        ("data_root", "set train_dataloader.dataset.data_root, val_evaluator.ann_file"),
        ("+data_root", "set train_dataloader.dataset.data_root, val_evaluator.ann_file"),
        ("_dataset.data_root", "set train_dataloader.dataset.data_root"),
        ("crop_size", "set train_dataloader.dataset.pipeline.0.crop_size, model.data_preprocessor.size"),
        ("max_epochs", "set train_cfg.max_epochs"),
        ("norm_cfg.type", "set model.neck.norm_cfg.type"),
        ("optimizer.lr", "set optim_wrapper.optimizer.lr"),
        ("train_pipeline.0.crop_size", "set train_dataloader.dataset.pipeline.0.crop_size"),
        ("lone", "change it in the config file"),
    ],
)
def test_a_variable_that_was_copied_is_refused_with_the_paths_that_count(
    tmp_path: Path, option: str, paths: str
) -> None:
    cfg = write(tmp_path, HELPERS)
    with pytest.raises(UnknownConfigKeyError, match="its value was copied") as error:
        check_cfg_options(cfg, {option: 1})
    assert str(error.value).endswith(paths) or paths.startswith("change") and paths in str(error.value)


def test_a_variable_that_the_config_lists_is_free(tmp_path: Path) -> None:
    cfg = write(tmp_path, "allowed_keys = ['mine']\nmine = 3\n")
    assert check_cfg_options(cfg, {"mine": 4}) == {"mine": 4}


def test_the_runners_keys_read_from_its_source_are_its_arguments():
    assert runner_keys() == set(inspect.signature(Runner.__init__).parameters) - {"self", "cfg"}
