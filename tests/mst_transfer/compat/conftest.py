"""Helper modules of these tests."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # for gloo_batch_norm_worker
