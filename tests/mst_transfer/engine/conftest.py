"""Helper modules of these tests."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # for drawn_samples, group_members, splittable_tasks
