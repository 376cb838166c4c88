"""The paper's three figures at full net size, by the documented launchers, begun on one process and ended on two.

Each run is begun with the recipe's batch on one process and resumed on two, each with half of it: the same steps.
"""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from lives import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("headline")]  # slow ones begin

PRETRAIN = "pretrain/configs/mst_vit_small_16_imagenet_100e.py"
DETECT, SEGMENT = "det_configs/mst_maskrcnn_coco.py", "seg_configs/mst_setr_pup_cityscapes.py"


def launch(script: str, *words: object, options: tuple[str, ...] = (), stop_at: str | None = None) -> tuple[int, str]:
    """``bash tools/SCRIPT.sh WORDS --cfg-options OPTIONS``; exit status and all that it says.

    Args:
        script: name of the launcher.
        words: its arguments.
        options: changes to the config.
        stop_at: a pattern; a line that has it makes the launcher get SIGTERM.
    """
    line = ["bash", str(ROOT / "tools" / f"{script}.sh"), *map(str, words)]
    line += ["--cfg-options", *options] if options else []
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "PYTHON": sys.executable}
    said, stopped = [], False
    with subprocess.Popen(
        line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as process:
        for row in process.stdout or ():
            said.append(row)
            if stop_at and not stopped and re.search(stop_at, row):
                process.send_signal(signal.SIGTERM)
                stopped = True
    return process.returncode, "".join(said)


@pytest.fixture(scope="module")
def teacher(walk_folder: Path, data_root: Path) -> Path:
    """A ViT-S/16 of three steps of the recipe, with its 65,536 prototypes."""
    work_dir = walk_folder / "headline"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MST_DATA_ROOT", str(data_root))
        options = ("default_hooks.logger.interval=1", "train_dataloader.num_workers=1")
        first = [PRETRAIN, 1, "--work-dir", work_dir]
        status, said = launch("pretrain", *first, options=options, stop_at=r"Epoch\(train\) +\[1\]\[1/4\]")
        assert status == 75, said[-3000:]
        halved = (*options, "train_dataloader.batch_size=32")
        then = [PRETRAIN, 2, "--work-dir", work_dir, "--resume"]
        status, said = launch("pretrain", *then, options=halved, stop_at=r"Epoch\(train\) +\[1\]\[3/4\]")
        assert status == 75, said[-3000:]
    assert (work_dir / "iter_4.pth").is_file() or (work_dir / "epoch_1.pth").is_file()
    return work_dir / "teacher.safetensors"


def test_pretraining_to_nearest_neighbours(teacher: Path, data_root: Path, record: Callable[[str], None]) -> None:
    for stage in ("train", "resume"):
        record(stage)
    out = teacher.parent / "knn.json"
    status, said = launch("eval_knn", teacher, data_root / "imagenet", 2, "--k", 5, "--out", out, "--num-workers", 0)
    assert status == 0, said[-3000:]
    assert 0 <= json.loads(out.read_text())["top1"]["5"] <= 100
    record("k-NN")


@pytest.mark.parametrize(
    ("config", "batch", "length", "counts", "checkpoint"),
    [
        (DETECT, 2, "max_epochs", (1, 2), "epoch_2.pth"),
        (SEGMENT, 2, "max_iters", (2, 3), "iter_3.pth"),
    ],
    ids=["detection", "segmentation"],
)
def test_transfer(
    config: str,
    batch: int,
    length: str,
    counts: tuple[int, int],
    checkpoint: str,
    teacher: Path,
    record: Callable[[str], None],
) -> None:
    work_dir = teacher.parent / Path(config).stem
    options = [f"model.backbone.checkpoint={teacher}", "default_hooks.checkpoint.interval=1"]
    options += ["+train_dataloader.dataset.indices=4", "+val_dataloader.dataset.indices=2"]
    options += ["train_dataloader.num_workers=1", "val_dataloader.num_workers=1"]
    first = [*options, f"train_dataloader.batch_size={batch}", f"train_cfg.{length}={counts[0]}"]
    first.append(f"train_cfg.val_interval={counts[0]}")
    status, said = launch("dist_train", config, 1, "--work-dir", work_dir, options=tuple(first))
    assert status == 0, said[-3000:]
    record("train")
    record("validate")

    then = [*options, f"train_dataloader.batch_size={batch // 2}", f"train_cfg.{length}={counts[1]}"]
    then.append(f"train_cfg.val_interval={counts[1]}")
    status, said = launch("dist_train", config, 2, "--work-dir", work_dir, "--resume", options=tuple(then))
    assert status == 0, said[-3000:]
    trained = json.loads((work_dir / "results.json").read_text())
    assert trained["resumed"] and trained["world_size"] == 2
    record("resume")

    words = [config, work_dir / checkpoint, 2, "--work-dir", work_dir / "test"]
    status, said = launch("dist_test", *words, options=("+test_dataloader.dataset.indices=2", *options[:1]))
    assert status == 0, said[-3000:]
    tested = json.loads((work_dir / "test" / "results.json").read_text())["metrics"]
    assert tested == pytest.approx(trained["metrics"], abs=1e-6)
    record("test")
