"""Paths of the helpers of these tests, and a picture of the machine's limits."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "mst_transfer")]
