"""Writes photos as tar shards in WebDataset's layout; indexes and verifies such shards, whoever has made them.

What is known of a finished shard is kept beside it, as a part of the index, until all are finished. So a command that
was stopped goes on, and ends with the same bytes as one that was not.
"""

import hashlib
import io
import json
import os
import re
import tarfile
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np

from mst_transfer.files.atomic_files import (
    readable_size,
    remove_stale_temporaries,
    write_atomically,
    write_text_atomically,
)
from mst_transfer.files.image_files import UnreadableImageError, check_pixels, read_image_file, shown_path
from mst_transfer.files.image_folder import find_images
from mst_transfer.files.shards import FORMAT, HEADER, NAMES, SAMPLES, Shards, read_header, scan_shard
from mst_transfer.runs.progress import Progress
from mst_transfer.runs.unreadable_images import LIST_NAME, append_to_list, read_list, write_list


def write_shards(photos: str, out: str, shard_bytes: int, num_workers: int) -> str:
    """Writes all photos below a folder, in the order of ``find_images``, and their index. Says what there is now.

    As in folders, a file that is no image stays a sample; it is empty where there are no bytes to be had. A shard is no
    larger than ``shard_bytes``, unless a single photo is; each of ``num_workers`` threads writes one at a time.

    Raises:
        FileNotFoundError: no folder, or no photo.
        FileNotWrittenError: no room, no right.
        ValueError: ``out`` holds other shards.
    """
    folder, paths = Path(out), find_images(photos)
    names, stats = member_names(paths, photos), [_stat(path) for path in paths]
    sizes, text = [size for size, _ in stats], repr((shard_bytes, names, stats))
    digest = hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()
    header = dict(format=FORMAT, complete=False, checksums=True, photos=digest, shards=[])
    held = read_header(folder) if (folder / HEADER).is_file() else None
    if held is None and any(folder.glob("*.tar")) or held is not None and held.get("photos") != header["photos"]:
        raise ValueError(f"{out} holds shards of other photos, or of another size. Next step: take another OUT")
    if held is not None and held["complete"]:
        return f"{out} is complete"
    write_text_atomically(folder / HEADER, json.dumps(header))
    remove_stale_temporaries(folder)
    starts, filled = [0], 0
    for number, size in enumerate(sizes):
        blocks = tarfile.BLOCKSIZE * (1 - -size // tarfile.BLOCKSIZE)
        if filled and filled + blocks > shard_bytes:
            starts.append(number)
            filled = 0
        filled += blocks
    slices = {f"shard-{number:06d}.tar": slice(*ends) for number, ends in enumerate(pairwise([*starts, len(paths)]))}

    def write(shard: Path, stopping: Event) -> None:
        part = slices[shard.name]
        _write_shard(shard, names[part], paths[part], stopping)

    _for_each([folder / name for name in slices], write, num_workers, "writing shards:")
    bad = read_list(folder / LIST_NAME)
    write_list(folder / LIST_NAME, bad)
    said = _join(folder, [*slices], header)
    return f"{said}; {len(bad):,} are no readable images, named in {folder / LIST_NAME}" if bad else said


def index_shards(folder: str, num_workers: int) -> str:
    """Indexes the images in all tar files of a folder by reading their headers. Says what there is now.

    Raises:
        FileNotFoundError: there are none.
        ValueError: a tar file is damaged, or they are being written by ``write_shards``.
    """
    shards = sorted(Path(folder).glob("*.tar"))
    if not shards:
        raise FileNotFoundError(f"{folder} holds no .tar file. Next step: name a folder that does")
    header: dict[str, Any] = dict(complete=True)
    with suppress(FileNotFoundError, ValueError):  # none, or damaged: made anew
        header = read_header(folder)
    if not header["complete"]:
        raise ValueError(f"{folder} is not finished. Next step: once more the mst shard PHOTOS that began it")
    _for_each(shards, lambda shard, _: _keep_part(shard, shard, checksums=False), num_workers, "indexing shards:")
    header = dict(format=FORMAT, checksums=False)
    return _join(Path(folder), [shard.name for shard in shards], header)


def verify_shards(folder: str, num_workers: int) -> list[str]:
    """Reads all shards of a finished index and compares them with it; a line for each that is damaged."""
    held, faults = Shards(folder), list[str]()
    numbers = {name: number for number, (name, _) in enumerate(held.shards)}

    def verify(shard: Path, _: Event) -> None:
        number = numbers[shard.name]
        expected = held.samples[slice(*held.bounds[number : number + 2])].copy()
        try:
            found = scan_shard(shard, held.has_checksums)[0]
        except (ValueError, OSError) as error:
            faults.append(str(error))
            return
        places = [name for name in ("offset", "size", "crc32") if not np.array_equal(found[name], expected[name])]
        if places == ["crc32"]:
            changed = held.bounds[number] + np.flatnonzero(found["crc32"] != expected["crc32"])
            faults.append(f"{len(changed):,} photos have changed, such as {shown_path(held.path(int(changed[0])))}")
        elif places:
            faults.append(f"{shard} holds other photos than its index says")

    _for_each([Path(folder) / name for name in numbers], verify, num_workers, "verifying shards:", again=True)
    return sorted(faults)


def member_names(paths: Sequence[str], root: str) -> list[str]:
    """Names in shards of the photos below ``root``: relative paths, each with a key of its own.

    WebDataset's key ends at the first dot of the base name. So earlier dots, and ``%``, are written as in an address;
    and an ending that is not that of most photos is in the key too, after ``%``: a.jpg and a.png are two samples.
    """
    endings = Counter(os.path.splitext(path)[1] for path in paths)
    usual, names = max(sorted(endings), key=endings.__getitem__), []
    for path in paths:
        stem, ending = os.path.splitext(os.path.relpath(path, root).replace(os.sep, "/").replace("%", "%25"))
        above, slash, base = stem.rpartition("/")
        key = base.replace(".", "%2E") + (f"%{ending[1:]}" if ending != usual else "")
        names.append(re.sub("^__", "%5F_", f"{above}{slash}{key}{ending}"))  # WebDataset passes over __x__
    return names


def _stat(path: str) -> tuple[int, int]:
    """Size and time of change."""
    try:
        status = os.stat(path)
        return status.st_size, status.st_mtime_ns
    except OSError:
        return 0, 0


def _part(shard: Path) -> Path:
    return shard.with_suffix(".part.npz")


def _keep_part(file: Path, shard: Path, checksums: bool) -> Any:
    """Scans the file that is or will be a shard, and keeps its part of the index; its samples."""
    samples, names, others = scan_shard(file, checksums)

    def write(temporary: str) -> None:
        with open(temporary, "wb") as part:
            np.savez(part, samples=samples, names=np.frombuffer(names, np.uint8), others=json.dumps(others))

    write_atomically(_part(shard), write)
    return samples


def _write_shard(shard: Path, names: Sequence[str], paths: Sequence[str], stopping: Event) -> None:
    """Writes a shard, and reads it back, before it gets its name."""

    def write(temporary: str) -> None:
        checksums = []
        with tarfile.open(temporary, "w", format=tarfile.GNU_FORMAT, encoding="utf-8") as tar:
            for name, path in zip(names, paths, strict=True):
                if stopping.is_set():
                    raise InterruptedError(f"{shard} is not finished")
                data, member = b"", tarfile.TarInfo(name)
                try:
                    data = read_image_file(path, any_format=True)
                    check_pixels(io.BytesIO(data))
                except UnreadableImageError as error:
                    if not os.path.lexists(path):
                        gone = f"{shown_path(path)} has gone since the command began"
                        raise ValueError(f"{gone}. Next step: put it back, and the same command again") from error
                    append_to_list(shard.parent / LIST_NAME, shown_path(path), str(error))
                member.size = len(data)
                checksums.append(zlib.crc32(data))
                tar.addfile(member, io.BytesIO(data))
        if _keep_part(Path(temporary), shard, True)["crc32"].tolist() != checksums:
            raise ValueError(f"{shard}: the disk gives back other bytes than were written. Next step: test the disk")

    write_atomically(shard, write)


def _for_each(
    shards: Sequence[Path], work: Callable[[Path, Event], object], num_workers: int, title: str, again: bool = False
) -> None:
    """Does the work for shards that have no part yet, or for all ``again``.

    An error or an interrupt stops it after the current photos.
    """
    todo, stopping = [shard for shard in shards if again or not _has_part(shard)], Event()
    progress = Progress(title, len(todo))
    with ThreadPoolExecutor(num_workers) as pool:
        try:
            for number, _ in enumerate(pool.map(lambda shard: work(shard, stopping), todo), 1):
                progress(number)
        except BaseException:
            stopping.set()
            pool.shutdown(cancel_futures=True)
            raise


def _has_part(shard: Path) -> bool:
    part = _part(shard)
    return shard.is_file() and part.is_file() and part.stat().st_mtime_ns >= shard.stat().st_mtime_ns


def _join(folder: Path, shards: Sequence[str], header: dict[str, Any]) -> str:
    """Writes the index from its parts, and removes these."""
    rows, others = [], Counter[str]()

    def write_names(temporary: str) -> None:
        with open(temporary, "wb") as file:
            for number, name in enumerate(shards):
                with np.load(_part(folder / name), allow_pickle=False) as part:
                    samples, names = part["samples"], part["names"].tobytes()
                    others.update(json.loads(part["others"].item()))
                samples["shard"] = number
                samples["name"] += np.uint64(file.tell())
                rows.append(samples)
                file.write(names)

    def write_samples(temporary: str) -> None:
        with open(temporary, "wb") as file:
            np.save(file, np.concatenate(rows))

    if "photos" not in header:
        (folder / HEADER).unlink(missing_ok=True)  # of an earlier index
    write_atomically(folder / NAMES, write_names)
    nums, sizes = [len(samples) for samples in rows], [(folder / name).stat().st_size for name in shards]
    if not sum(nums):
        raise ValueError(f"{folder}: no image in {len(shards):,} shards; what they hold ends in {sorted(others)}")
    write_atomically(folder / SAMPLES, write_samples)
    unseen = [] if header["checksums"] else [_stat(str(folder / name)) for name in shards]
    digest = hashlib.sha256(repr(unseen).encode())  # tells caches when photos change
    for samples in rows:
        digest.update(samples.tobytes())
    header |= dict(complete=True, index=digest.hexdigest(), shards=[*zip(shards, sizes, nums, strict=True)])
    write_text_atomically(folder / HEADER, json.dumps(header))
    for name in shards:
        _part(folder / name).unlink()
    left = f"; no images: {dict(others)}" if others else ""
    return f"{folder}: {sum(nums):,} photos in {len(shards):,} shards of {readable_size(sum(sizes))} in all{left}"
