"""The paper's three figures at full net size, by the documented launchers, begun on one process and ended on two.

Each run is begun on one process and resumed on two, each with half of the batch: the same steps. Batches are small, or
they would not fit into the memory of a laptop.
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


def pretrain(work_dir: Path) -> Path:
    """Begins the recipe on one process, goes on with two, each time stopped by SIGTERM; the teacher's file."""
    for processes, last in ((1, 1), (2, 3)):
        options = ["default_hooks.logger.interval=1", "train_dataloader.num_workers=1"]
        options.append(f"train_dataloader.batch_size={4 // processes}")  # 64 would take 7 GB a process
        words = [PRETRAIN, processes, "--work-dir", work_dir, *(["--resume"] if processes == 2 else [])]
        status, said = launch("pretrain", *words, options=tuple(options), stop_at=rf"\(train\) +\[1\]\[ *{last}/8\]")
        assert status == 75, said[-3000:]
    assert (work_dir / "iter_4.pth").is_file()
    return work_dir / "teacher.safetensors"


def transfer(config: str, teacher: Path, length: str, counts: tuple[int, int], checkpoint: str) -> None:
    """Two steps of two images and a validation on one process, one step more on two, validation and test on two."""
    work_dir = teacher.parent / Path(config).stem
    options = [f"model.backbone.checkpoint={teacher}", "default_hooks.checkpoint.interval=1"]
    options.append("+train_dataloader.dataset.indices=4")
    options += ["train_dataloader.num_workers=1", "val_dataloader.num_workers=1"]
    for processes, count in zip((1, 2), counts, strict=True):
        schedule = [f"train_cfg.{length}={count}", f"train_cfg.val_interval={count}"]
        schedule.append(f"train_dataloader.batch_size={2 // processes}")
        schedule.append(f"+val_dataloader.dataset.indices={processes}")
        words = [config, processes, "--work-dir", work_dir, *(["--resume"] if processes == 2 else [])]
        status, said = launch("dist_train", *words, options=(*options, *schedule))
        assert status == 0, said[-3000:]
        results = json.loads((work_dir / "results.json").read_text())
        assert results["resumed"] == (processes == 2) and results["world_size"] == processes
        assert results["checkpoint"] == str(teacher) and results["metrics"]
    words = [config, work_dir / checkpoint, 2, "--work-dir", work_dir / "test"]
    status, said = launch("dist_test", *words, options=("+test_dataloader.dataset.indices=2", options[0]))
    assert status == 0, said[-3000:]
    tested = json.loads((work_dir / "test" / "results.json").read_text())["metrics"]
    assert tested == pytest.approx(results["metrics"], abs=1e-6)


@pytest.mark.slow
def test_the_papers_figures_at_full_net_size(walk_folder: Path, data_root: Path, record: Callable[[str], None]) -> None:
    """ViT-S/16 with 65,536 prototypes -> k-NN, Mask R-CNN on COCO, SETR-PUP on Cityscapes, all from the same file."""
    teacher = pretrain(walk_folder / "headline")
    record("pre-training")
    out = teacher.parent / "knn.json"
    status, said = launch("eval_knn", teacher, data_root / "imagenet", 2, "--k", 5, "--out", out, "--num-workers", 0)
    assert status == 0, said[-3000:]
    assert 0 <= json.loads(out.read_text())["top1"]["5"] <= 100
    record("k-NN")
    transfer(DETECT, teacher, "max_epochs", (1, 2), "epoch_2.pth")
    record("detection")
    transfer(SEGMENT, teacher, "max_iters", (2, 3), "iter_3.pth")
    record("segmentation")
