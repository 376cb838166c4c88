"""Helper modules of these tests."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # for agreeing_data, agreeing_transfers
