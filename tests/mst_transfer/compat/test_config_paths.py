"""Configs of this package and of others are found, in every kind of installation."""

import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
from mmengine.config import Config

from mst_transfer.compat import config_paths
from mst_transfer.configs import shipped


def test_bases_of_other_packages_need_no_pkg_resources(tmp_path: Path, root: Path) -> None:
    path = tmp_path / "theirs.py"
    path.write_text("_base_ = ['mmdet::_base_/default_runtime.py', 'mmdet::_base_/schedules/schedule_1x.py']\n")
    code = (
        "import sys; sys.modules['pkg_resources'] = None; import mst_transfer;"
        "from mmengine.config import Config;"
        f"assert Config.fromfile({str(path)!r}).train_cfg.max_epochs == 12;"
        "from mmengine.utils import get_installed_path, is_installed;"
        "assert get_installed_path('mmsegmentation').endswith('mmseg') and not is_installed('no_such_thing')"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)


def test_packages_of_either_line_are_found_by_their_first_names(monkeypatch: pytest.MonkeyPatch) -> None:
    def of_the_fork(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(config_paths, "distribution", of_the_fork)
    assert (
        config_paths.is_installed("mmsegmentation") and Path(config_paths.get_installed_path("mmdet")).name == "mmdet"
    )
    with pytest.raises(ModuleNotFoundError, match="package 'mmpose' is not installed"):
        config_paths.get_installed_path("mmpose")


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("det_configs/mst_maskrcnn_cocoa.py", ["det_configs/mst_maskrcnn_coco.py"]),
        ("mst_transfer::det_configs/mst_maskrcnn_cocoa.py", ["det_configs/mst_maskrcnn_coco.py"]),
        ("mst_transfer::setup.py", []),
        ("nope.py", []),
        ("elsewhere/x", []),
        ("mst_vit_smaple.py", ["pretrain/configs/mst_vit_sample.py"]),  # also without its folder
        ("configs/mst_setr_pup_camvid", ["seg_configs/mst_setr_pup_camvid.py"]),
        ("study/dino.py", ["pretrain/configs/ablations/dino.py", "pretrain/configs/study/dino.py"]),
    ],
)
def test_few_configs_are_named_and_only_near_ones(name: str, near: list[str]) -> None:
    with pytest.raises(FileNotFoundError) as refusal:
        shipped.resolve_config(name)
    named = [config for config in shipped.available_configs() if config in str(refusal.value)]
    assert set(near) <= set(named) and len(named) <= 3 and bool(named) == bool(near)
    if not near:
        assert all(folder in str(refusal.value) for folder in ("det_configs", "seg_configs", "pretrain/configs"))


def test_a_path_wins_over_a_name_and_a_name_works_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    name = "det_configs/mst_maskrcnn_coco.py"
    assert shipped.resolve_config(name) == shipped.config_root() / name
    (tmp_path / "det_configs").mkdir()
    (tmp_path / name).write_text("")
    assert shipped.resolve_config(name) == Path(name)


def test_libraries_imported_before_the_package_are_adapted_too(root: Path, tmp_path: Path) -> None:
    path = tmp_path / "theirs.py"
    path.write_text("_base_ = 'mst_transfer::det_configs/mst_maskrcnn_coco.py'\n")
    code = (
        "import mmengine.runner; from mmengine.config import Config; import mst_transfer;"
        f"Config.fromfile({str(path)!r});"
        "from mmengine.fileio import get_file_backend; print(type(get_file_backend('x')).__name__)"
    )
    out = subprocess.run([sys.executable, "-c", code], check=True, cwd=root, capture_output=True, text=True).stdout
    assert out.strip() == "AtomicLocalBackend"


def test_bases_of_wheels_are_found_without_reading_the_model_zoo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mmdet
    import mmengine.config.utils as config_utils

    monkeypatch.setattr(config_utils, "load", lambda path: pytest.fail(f"{path} was read"))
    name = "swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py"
    path, scope = Config._get_cfg_path(f"mmdet::{name}", str(tmp_path / "mine.py"))
    assert Path(path) == Path(mmdet.__file__).parent / ".mim" / "configs" / name and scope == "mmdet"
