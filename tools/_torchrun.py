"""``_torchrun.py NUMBER SCRIPT WORDS``: one process, or several under torchrun: see mst_transfer/runs/processes.py."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mst_transfer.runs.processes import num_nodes, run_group  # noqa: E402

if __name__ == "__main__":
    number, script, *words = sys.argv[1:]
    if int(number) * num_nodes() == 1:
        os.execv(sys.executable, [sys.executable, script, *words])
    try:
        sys.exit(run_group(int(number), [script, *words]))
    except ValueError as error:
        sys.exit(f"{Path(script).stem}: {error}")
