"""Swin Transformers."""
