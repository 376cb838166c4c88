"""How long the command lines take to answer: help, and a misspelt option. The peer is importing what they drive."""

import subprocess
import sys
from pathlib import Path

from benchmarks.measure import Row, compare, take_turns, wall_clock

ROOT = Path(__file__).resolve().parent.parent
COMMANDS = {
    "tools/train.py --help": ["tools/train.py", "--help"],
    "tools/pretrain.py --help": ["tools/pretrain.py", "--help"],
    "a misspelt option of tools/train.py": [
        *("tools/train.py", "det_configs/mst_maskrcnn_coco.py", "--cfg-options", "optm_wrapper.optimizer.lr=1"),
    ],
    "a misspelt option of tools/pretrain.py": [
        *("tools/pretrain.py", "pretrain/configs/mst_vit_small_16_imagenet_100e.py", "--cfg-options", "modl.x=1"),
    ],
}
PEER = "import mmengine.runner, mmdet.registry"  # what mmdet's tools/train.py imports before it reads its options


def run(quick: bool = False) -> list[Row]:
    """A row a command."""

    def call(arguments: list[str]) -> None:
        subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True)

    works = {name: (lambda arguments=arguments: call(arguments)) for name, arguments in COMMANDS.items()}
    times = take_turns(
        {"peer": lambda: call(["-c", PEER]), **works}, 1 if quick else 5, wall_clock, warm_up=0 if quick else 1
    )
    return [
        compare(
            f"answer to {name}",
            ("imports of mmdet's train.py", times["peer"]),
            ("ours", times[name]),
            note="goal: below 1 s",
        )
        for name in COMMANDS
    ]
