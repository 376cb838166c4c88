"""MST: attention-guided mask, restoring decoder."""

_base_ = ["../_base_/study.py"]
