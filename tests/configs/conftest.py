"""Modules that several folders of tests use."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent.parent)]  # for planted, narrow_nets
