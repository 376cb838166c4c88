"""Fixtures and options of all tests.

What they share, by name of the module: ``small_sets`` data of 8 × 8 pixels, read by the checks before a run;
``tiny_tasks`` runs of seconds in all three tasks; ``line_run`` the smallest run of mmengine; ``small_vit`` and
``golden_swin`` checkpoints; ``recipes`` the shipped configs; ``narrow_nets`` their nets, narrow; ``planted`` and
``planted_detector`` nets that answer right, with ``true_sizes`` the data sets at their true sizes; ``bad_images`` and
``malicious_files`` what must be refused; ``process_groups`` and ``programs`` several processes, and killed runs.
"""

import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")

ALONE = ("faults", "walk")  # markers of tests that run only when asked for
ROOT = Path(__file__).resolve().parent.parent
HELPERS = (".", "configs", "documentation", "faults", "fuzz", "golden", "walk", "mst_transfer")
HELPERS += tuple(
    f"mst_transfer/{folder}" for folder in ("card", "compat/golden", "engine", "evaluation", "export", "probes")
)
sys.path[:0] = [str(ROOT / "tests" / folder) for folder in HELPERS]  # modules that tests of these folders share
_frozen = {"modules": 0}  # as many were imported when their objects were last set aside


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The small real image sets coco_mini, camvid and photos; the test is skipped where they are not."""
    folder = Path(os.environ.get("MST_TEST_DATA", ROOT.parent / "shared" / "data"))
    missing = [name for name in ("coco_mini", "camvid", "photos") if not (folder / name).is_dir()]
    if missing:
        pytest.skip(f"no {', '.join(missing)} in {folder}; MST_TEST_DATA names another folder")
    return folder


@pytest.fixture(scope="session")
def photo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty-four little pictures of coloured blocks, in two nested folders."""
    import cv2
    import numpy as np

    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    for index in range(24):
        place = folder / f"part_{index % 2}"
        place.mkdir(exist_ok=True)
        blocks = random.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        cv2.imwrite(str(place / f"{index:02d}.png"), cv2.resize(blocks, (48, 48), interpolation=cv2.INTER_CUBIC))
    return folder


@pytest.fixture(autouse=True)
def default_scope() -> Iterator[None]:
    """Every test begins without a default scope of mmengine, whatever those before it, or their fixtures, have set."""
    registry = sys.modules.get("mmengine.registry")
    if registry is not None:
        registry.DefaultScope._instance_dict.clear()
    yield


@pytest.fixture(scope="session", autouse=True)
def configs_are_formatted_once() -> None:
    """mmengine formats the config of a run anew for its file, its log and every checkpoint: a third of a tiny run."""
    from mmengine.config import config
    from yapf.yapflib import yapf_api

    known: dict[str, tuple] = {}
    format_code = yapf_api.FormatCode

    def formatted(code: str, **options: Any) -> tuple:
        key = f"{code}{options}"
        if key not in known:
            known[key] = format_code(code, **options)
        return known[key]

    yapf_api.FormatCode = formatted  # mmengine's maintained fork imports it from here in every call
    if hasattr(config, "FormatCode"):
        config.FormatCode = formatted


@pytest.fixture(autouse=True)
def libraries_are_not_searched_for_garbage() -> None:
    """mmengine collects garbage for every data set it makes: most of a second among the objects of all libraries."""
    if len(sys.modules) > _frozen["modules"] + 100:
        _frozen["modules"] = len(sys.modules)
        gc.collect()
        gc.freeze()


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--faults``, ``--walk``: the tests of one of these markers, and no others."""
    parser.addoption("--faults", action="store_true", help="run the tests marked faults, and only them")
    parser.addoption("--walk", action="store_true", help="run the tests marked walk, and only them")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """``--faults`` and ``--walk`` choose the tests so marked, else all others; ``cuda`` tests need a GPU."""
    wanted = {name for name in ALONE if config.getoption(f"--{name}")}
    left_out = [item for item in items if {name for name in ALONE if item.get_closest_marker(name)} != wanted]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in set(left_out)]
    if os.environ.get("PYTEST_XDIST_WORKER"):  # long files first: then all processes end at about the same time
        long = {item.path for item in items if item.get_closest_marker("slow")}
        items.sort(key=lambda item: item.path not in long)
    if not any(item.get_closest_marker("cuda") for item in items):
        return
    import torch

    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason=f"needs a CUDA device; torch {torch.__version__} sees none")
    for item in items:
        if item.get_closest_marker("cuda"):
            item.add_marker(skip)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """After a walk, the table of recipes and the stages that each went through."""
    if not config.getoption("--walk"):
        return
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.stats.get(kind, [])]
    rows: dict[str, list[str]] = {}
    for report in reports:
        stages = [value for name, value in report.user_properties if name == "stage"]
        if report.when == "call":
            name = report.nodeid.split("::")[-1].partition("[")[2].rstrip("]") or report.nodeid.split("::")[-1]
            rows[name] = [*stages, *["**failed**"] * report.failed, f"{report.duration:.0f} s"]
    terminalreporter.write_line("| recipe | went through |\n|---|---|")
    for name, stages in sorted(rows.items()):
        terminalreporter.write_line(f"| `{name}` | {' · '.join(stages)} |")


@pytest.fixture
def tiny_seg_config(tmp_path: Path) -> Path:
    """A config of mmseg with its data, eight images of 32 × 32: light squares on dark ground."""
    from tiny_tasks import TINY_SEG, make_pictures

    make_pictures(tmp_path / "tiny data", 8, sizes=((32, 32),), sides=(16, 16))
    path = tmp_path / "tiny_seg.py"
    path.write_text(TINY_SEG.format(root=str(tmp_path / "tiny data")))
    return path


@pytest.fixture
def local_trackers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of a user's, nothing sent."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
