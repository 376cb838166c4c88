"""Finds what would stop a run before its first step."""
