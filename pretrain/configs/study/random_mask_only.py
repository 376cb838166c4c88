"""A random mask of as many patches as MST hides, without the restoring decoder."""

_base_ = ["../_base_/study.py"]

model = dict(masking=dict(_delete_=True, mode="random", p=0.5), decoder=None)
