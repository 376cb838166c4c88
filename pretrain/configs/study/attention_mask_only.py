"""MST's mask without the restoring decoder."""

_base_ = ["../_base_/study.py"]

model = dict(decoder=None)
