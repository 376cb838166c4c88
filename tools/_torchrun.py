"""torchrun for the launchers beside it: see mst_transfer/runs/stop.py."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mst_transfer.runs.stop import run_torchrun  # noqa: E402

if __name__ == "__main__":
    sys.exit(run_torchrun(sys.argv[1:]))
