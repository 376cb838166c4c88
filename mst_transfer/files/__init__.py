"""Reads and writes files that may be hostile or half written: atomic writes, checksums, images."""
