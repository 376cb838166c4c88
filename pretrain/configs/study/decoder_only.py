"""The restoring decoder without any mask: it restores views that the student sees whole."""

_base_ = ["../_base_/study.py"]

model = dict(masking=dict(_delete_=True, mode="none"))
