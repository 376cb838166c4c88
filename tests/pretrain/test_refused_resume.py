"""A pre-training that is refused to resume leaves its work dir as it was; one that goes on writes its config."""

import shutil
import time
from pathlib import Path

from untouched_folders import contents, refusal

from pretrain.run.train import main

REFUSALS = (
    ("model.masking.p: 0.5 in the checkpoint", ["model.masking.p=0.25"]),
    ("number of epochs 2", ["train_cfg.max_epochs=3"]),
    ("effective batch 4", ["train_dataloader.batch_size=2"]),
    ("last_layer.weight_v: copying a param with shape", ["model.head.out_dim=16", "+exact_resume=False"]),
    ("Missing key(s) in state_dict", ["model.backbone.depth=3", "+exact_resume=False"]),
    ("patch", ["train_dataloader.dataset.global_size=36", "+exact_resume=False"]),  # while the loop is being built
    ("restoring_weight", ["+model.restoring_weight=one"]),  # while everything is being built
)


def test_a_refused_resume_leaves_the_work_dir_as_it_was(finished: Path, tiny_config: Path, tmp_path: Path) -> None:
    stopped = shutil.copytree(finished, tmp_path / "run")
    words = [str(tiny_config), "--work-dir", str(stopped), "--resume", str(stopped / "iter_8.pth")]
    time.sleep(1 - time.time() % 1)  # mmengine names the folder of a log by the second
    before = contents(stopped)
    for reason, options in REFUSALS:
        assert reason in refusal(main, [*words, "--cfg-options", *options])
        assert contents(stopped) == before, options
    assert refusal(main, [*words, "--cfg-options", "default_hooks.logger.interval=2"]) == ""
    after = contents(stopped)
    assert after["tiny.py"] != before["tiny.py"] and len(list(stopped.glob("*/*.log"))) == 2
