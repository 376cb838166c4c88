"""DINO's linear protocol on a checkpoint, from a checkout that need not be installed."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mst_transfer.probes.main import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main("eval_linear", sys.argv[1:]))
