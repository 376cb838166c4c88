"""A training of heads that is refused to resume leaves its work dir as it was; one that goes on writes its config."""

import time
from pathlib import Path

from untouched_folders import contents, refusal

from mst_transfer.cli.main import main

REFUSALS = (
    ("decode_head.num_convs: 1 in the checkpoint", ["model.decode_head.num_convs=2"]),
    ("samples of an iteration 2", ["train_dataloader.batch_size=4"]),
    ("accumulated iterations 1", ["+optim_wrapper.accumulative_counts=2"]),
    ("dropout probability", ["model.decode_head.dropout_ratio=2"]),  # while everything is being built
)


def test_a_refused_resume_leaves_the_work_dir_as_it_was(tiny_seg_config: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ["train", str(tiny_seg_config), "--work-dir", str(run)]
    assert main([*words, "--cfg-options", "train_cfg.max_epochs=1"]) == 0
    time.sleep(1 - time.time() % 1)  # mmengine names the folder of a log by the second
    before = contents(run)
    for reason, options in REFUSALS:
        assert reason in refusal(main, [*words, "--resume", "--cfg-options", *options])
        assert contents(run) == before, options
    assert refusal(main, [*words, "--resume"]) == ""
    assert contents(run)["tiny_seg.py"] != before["tiny_seg.py"] and len(list(run.glob("*/*.log"))) == 2
