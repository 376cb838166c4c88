"""Mutations of bytes, of JSON, and of files of weights."""

from __future__ import annotations

import copy
import io
import json
import random
import struct
import zipfile
from typing import Any

BYTES = [
    b"\x00", b"\xff", b"\x80", b"PK\x03\x04", b"c", b".", b"(", b"}", b"]", b"R", b"\x85", b"\x8a\x09" + b"\xff" * 9,
]  # fmt: skip
VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 2**31, 2**63, -(2**63), 2**64, 10**30, 1e308, -1e308, 0.5, float("nan"), float("inf"),
    "", "x", "\0", "../x", "ä" * 50, [], [[]], {}, {"a": 1}, [0, 0, 1, 1], [1, 2, 3, 4, 5, 6], [[0, 0, 1, 1, 2, 2]],
    {"counts": [1, 2], "size": [2, 2]}, {"counts": "0", "size": [8, 8]}, {"counts": [], "size": []}, [None],
]  # fmt: skip


def mutate_bytes(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """One to four small changes."""
    content = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(content) + 1)
        length = rng.choice((1, 2, 4, 8, 16, 64))
        kind = rng.randrange(7)
        if kind == 0 and content:
            content[place % len(content)] ^= 1 << rng.randrange(8)
        elif kind == 1:
            content[place : place + length] = rng.choice(BYTES)
        elif kind == 2:
            content[place:place] = rng.choice(BYTES)
        elif kind == 3:
            del content[place : place + length]
        elif kind == 4:
            start = rng.randrange(len(other) + 1)
            content[place : place + length] = other[start : start + length]
        elif kind == 5:
            content[place : place + 4] = struct.pack("<I", rng.choice((0, 1, 255, 2**16, 2**31, 2**32 - 1)))
        elif rng.random() < 0.2:
            del content[place:]
    return bytes(content)


def mutate_json(rng: random.Random, node: Any, other: Any) -> Any:
    """A copy with one to three values changed, taken away, doubled or moved."""
    node = copy.deepcopy(node)
    for _ in range(rng.randint(1, 3)):
        holders = list(_holders(node))
        if not holders:
            return rng.choice(VALUES)
        holder = rng.choice(holders)
        keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
        key, kind = rng.choice(keys), rng.randrange(6)
        if kind <= 2:
            holder[key] = copy.deepcopy(rng.choice(VALUES))
        elif kind == 3:
            del holder[key]
        elif kind == 4:
            source = rng.choice(list(_holders(other)) or [[0]])
            holder[key] = copy.deepcopy(rng.choice(list(source.values()) if isinstance(source, dict) else source))
        elif isinstance(holder, list):
            holder.append(copy.deepcopy(holder[key]))
        else:
            holder[str(key) + rng.choice(("", "x", ".0"))] = copy.deepcopy(holder[key])
    return node


def _holders(node: Any) -> list[Any]:
    children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    return ([node] if isinstance(node, dict | list) and node else []) + [
        h for child in children for h in _holders(child)
    ]


def mutate_safetensors(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """Changes in the header's JSON, whose length stays right, or anywhere."""
    try:
        (length,) = struct.unpack("<Q", data[:8])
        header = json.loads(data[8 : 8 + length])
    except (struct.error, ValueError, RecursionError):
        return mutate_bytes(rng, data, other)
    if rng.random() < 0.2:
        return mutate_bytes(rng, data, other)
    text = json.dumps(mutate_json(rng, header, header)).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


def mutate_archive(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """Changes in a record of a zip archive, whose directory stays right, or anywhere."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            records = {name: archive.read(name) for name in archive.namelist()}
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, EOFError, RuntimeError):
        return mutate_bytes(rng, data, other)
    if not records or rng.random() < 0.1:
        return mutate_bytes(rng, data, other)
    pickles = [name for name in records if name.endswith("data.pkl")]
    chosen = pickles[0] if pickles and rng.random() < 0.8 else rng.choice(list(records))
    records[chosen] = mutate_bytes(rng, records[chosen], records[rng.choice(list(records))])
    if rng.random() < 0.05:
        del records[rng.choice(list(records))]
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in records.items():
            archive.writestr(name, content)
    return file.getvalue()
