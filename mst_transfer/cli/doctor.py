"""``mst doctor``: what is installed, what it runs on, and for each fault the command that mends it."""

import argparse
import sys
from collections.abc import Sequence

from mst_transfer.cli import checks

MARKS = {"ok": "ok   ", "note": "note ", "fault": "FAULT"}


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the findings.

    Returns:
        0 without faults, 1 with.
    """
    parser = argparse.ArgumentParser(prog="mst doctor", description="Check the installation.")
    parser.parse_args(argv)
    faults = 0
    for check in checks.ALL:
        for finding in check():
            faults += finding.kind == "fault"
            print(f"{MARKS[finding.kind]}  {finding.what}")
            if finding.fix:
                print(f"       mend it: {finding.fix}")
    print(f"\n{faults} fault{'' if faults == 1 else 's'} found" if faults else "\nno faults found")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
