"""DINO: no mask, no decoder."""

_base_ = ["../_base_/study.py"]

model = dict(masking=dict(_delete_=True, mode="none"), decoder=None)
