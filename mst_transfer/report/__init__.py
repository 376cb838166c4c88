"""``mst report OUT``: one page and one table from the runs under a folder."""

from mst_transfer.report.main import main, write_report

__all__ = ["main", "write_report"]
