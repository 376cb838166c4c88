"""``mst doctor``: what is installed, what it runs on, and for each fault the command that mends it."""

import argparse
import importlib
import os
import platform
import shlex
import shutil
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import NamedTuple

from mst_transfer.compat.mm_lines import MM_LINES, MM_NAMES

DISTRIBUTION = "mst-transfer"
DATA_FOLDERS = ("sample", "coco", "cityscapes", "ade", "imagenet", "coco_mini", "camvid", "photos")
SMALL_SHARED_MEMORY = 512 * 2**20  # bytes; containers often get 64 MiB, too little for data loader workers
LINE_NAMES = {"openmmlab": "OpenMMLab's", "onedl": "the maintained fork (onedl)"}
MMCV = ("mmcv", "mmcv-lite", "onedl-mmcv")
MMCV_LITE = "pip install --no-deps 'mmcv-lite>=2.0.0rc4,<2.2'"  # it requires OpenMMLab's mmengine: not for the fork

MARKS = {"ok": "ok   ", "note": "note ", "fault": "FAULT"}


class Line(NamedTuple):
    """A line of the report; a check yields some and raises nothing."""

    kind: str  # ok, note (nothing to mend) or fault
    what: str  # was found
    fix: str = ""  # the command that mends a fault


def installed_version(name: str) -> str | None:
    """Version of a distribution, None if it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def constraints() -> str:
    """pip's option for the tested versions, with a space behind; empty where there is no checkout that names them."""
    if Path("constraints.txt").is_file():
        return "-c constraints.txt "
    file = Path(__file__).resolve().parents[2] / "constraints.txt"
    return f"-c {shlex.quote(str(file))} " if file.is_file() else ""


def check_python() -> Iterator[Line]:
    """Is this a supported interpreter?"""
    found = f"Python {platform.python_version()} ({sys.executable})"
    supported = (3, 10) <= sys.version_info[:2] < (3, 14)
    fault = Line("fault", f"{found}: 3.10 to 3.13 is supported", "python3.12 -m venv .venv, and install again")
    yield Line("ok", found) if supported else fault


def check_packages() -> Iterator[Line]:
    """Is every requirement installed in a supported version?"""
    from packaging.requirements import Requirement

    try:
        requirements = [Requirement(line) for line in requires(DISTRIBUTION) or []]
    except PackageNotFoundError:
        yield Line("fault", f"{DISTRIBUTION} is not installed", f"pip install {constraints()}-e .")
        return
    for requirement in requirements:
        if requirement.name in (*MMCV, *MM_NAMES):
            continue  # one or another will do: check_mm, check_mmcv
        if not requirement.marker or requirement.marker.evaluate({"extra": ""}):
            yield check_version(requirement.name, str(requirement.specifier))


def check_version(name: str, versions: str) -> Line:
    """Is the distribution installed in one of these versions?"""
    from packaging.specifiers import SpecifierSet

    there, found = name, installed_version(name)
    if found is None and name == "opencv-python":
        there, found = "opencv-python-headless", installed_version("opencv-python-headless")
    fix = f"pip install '{name}{versions}'"
    if found is None:
        return Line("fault", f"{name} is not installed", fix)
    if not SpecifierSet(versions).contains(found, prereleases=True):
        return Line("fault", f"{there} {found}: {versions} is needed", fix)
    return Line("ok", f"{there} {found}")


def mm_line() -> str:
    """The line of mm packages that is installed, a key of ``MM_LINES``."""
    return "onedl" if any(map(installed_version, MM_LINES["onedl"])) else "openmmlab"


def check_mm() -> Iterator[Line]:
    """Are mmengine, mmdet and mmseg there, all of one line? Both lines install the same files."""
    there = [[f"{one} {found}" for one in line if (found := installed_version(one))] for line in MM_LINES.values()]
    if all(there):
        ours, fork = (" ".join(f"'{name}{found}'" for name, found in line.items()) for line in MM_LINES.values())
        fix = f"pip uninstall -y {' '.join(MM_NAMES)} && pip install {constraints()}{ours}, or for the fork {fork}"
        yield Line(
            "fault", f"{', '.join(sum(there, []))} are installed together: their files overwrite each other", fix
        )
        return
    line = mm_line()
    yield Line("ok", f"mm packages: {LINE_NAMES[line]}")
    yield from (check_version(*one) for one in MM_LINES[line].items())


def check_mmcv() -> Iterator[Line]:
    """Is there one mmcv, and only one? All install the same files."""
    there = [f"{name} {number}" for name in MMCV if (number := installed_version(name))]
    if not there:
        yield Line("fault", "neither mmcv nor mmcv-lite is installed", MMCV_LITE)
    elif len(there) > 1:
        several = f"{' and '.join(there)} are installed together and overwrite each other's files"
        yield Line("fault", several, f"pip uninstall -y {' '.join(MMCV)} && {MMCV_LITE}")
    else:
        yield Line("ok", there[0])


def check_imports() -> Iterator[Line]:
    """Can the libraries be imported?"""
    seen: set[str] = set()
    names = ("torch", "torchvision", "cv2", "timm", "mmengine", "mmcv", "mmdet", "mmseg", "pycocotools.mask")
    for name in names:
        try:
            importlib.import_module(name)
        except Exception as error:  # whatever a broken installation raises
            what = f"{type(error).__name__}: {error}"
            if what not in seen:  # else a consequence of the one before
                yield Line("fault", f"import {name} fails: {what}", import_fix(name, error))
            seen.add(what)


def import_fix(name: str, error: Exception) -> str:
    """The command that mends a failed import."""
    text = str(error)
    if name == "cv2" and ("libGL" in text or "libgthread" in text or "libglib" in text):
        return "pip uninstall -y opencv-python && pip install opencv-python-headless"
    if "torchvision::nms" in text:
        return f"pip install --force-reinstall {constraints()}torch torchvision"
    missing = getattr(error, "name", None)
    if isinstance(error, ModuleNotFoundError) and missing and missing.split(".")[0] != name.split(".")[0]:
        return f"pip install {missing.split('.')[0]}"
    distributions = dict(zip(("mmengine", "mmdet", "mmseg"), MM_LINES[mm_line()], strict=True))
    distributions |= {"cv2": "opencv-python", "mmcv": "mmcv-lite"}
    distribution = distributions.get(name, name.split(".")[0])
    return f"pip install --force-reinstall --no-deps {constraints()}{distribution}"


def check_operators() -> Iterator[Line]:
    """Which operators does mmcv use, and do they work?"""
    try:
        import torch
        from mmcv.ops import nms, roi_align

        from mst_transfer.compat import ops
    except Exception:  # said by check_imports
        return
    try:
        boxes = torch.tensor([[0.0, 0, 4, 4], [0, 0, 4, 3.9]])
        kept = nms(boxes, torch.tensor([0.5, 0.9]), 0.5)[1].tolist()
        pooled = roi_align(torch.ones(1, 1, 8, 8), torch.tensor([[0.0, 0, 0, 4, 4]]), 2, 1.0, 2, "avg", True)
        if kept != [1] or not bool((pooled == 1).all()):
            raise RuntimeError(f"nms kept {kept} instead of [1], RoIAlign of ones gave {pooled.flatten().tolist()}")
    except Exception as error:  # whatever a broken installation raises
        fix = f"pip install --force-reinstall {constraints()}torch torchvision mmcv-lite"
        yield Line("fault", f"mmcv's operators fail: {type(error).__name__}: {error}", fix)
    else:
        source = "mmcv's own, compiled" if ops.backend() == "compiled" else "torchvision's, for mmcv-lite"
        yield Line("ok", f"operators: {source}")


def check_devices() -> Iterator[Line]:
    """Which devices does torch see?"""
    try:
        import torch
    except Exception:  # said by check_imports
        return
    from mst_transfer.runs.launch import num_cores

    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        yield Line("ok", f"GPU {index}: {properties.name}, {properties.total_memory / 2**30:.0f} GiB")
    driver = shutil.which("nvidia-smi") or Path("/proc/driver/nvidia/version").exists()
    cuda, here = torch.version.cuda, "an NVIDIA driver is here, but torch"
    if torch.cuda.is_available():
        pass
    elif not driver:
        yield Line("note", "no GPU: everything runs on the CPU")
    elif cuda is None:
        fix = "pip install --force-reinstall torch torchvision, from an index with CUDA builds"
        yield Line("fault", f"{here} {torch.__version__} has no CUDA", fix)
    else:
        fix = "nvidia-smi shows GPUs and driver version: update the driver, or unset CUDA_VISIBLE_DEVICES"
        yield Line("fault", f"{here} (CUDA {cuda}) sees no GPU", fix)
    yield Line("ok", f"CPU: {num_cores()} cores")


def check_shared_memory() -> Iterator[Line]:
    """Is there room for what data loader workers pass on?"""
    folder = Path("/dev/shm")
    if folder.is_dir() and (free := shutil.disk_usage(folder).free) < SMALL_SHARED_MEMORY:
        found = f"/dev/shm has {free / 2**20:.0f} MiB free"
        fix = "start the container with --shm-size=8g, or set num_workers=0 in the config's data loaders"
        yield Line("fault", f"{found}: data loader workers may crash", fix)


def check_data() -> Iterator[Line]:
    """Which data sets are under the data root?"""
    named = os.environ.get("MST_DATA_ROOT")
    root = Path(named or "data")
    origin = "MST_DATA_ROOT" if named else "default; MST_DATA_ROOT names another"
    if named and not root.is_dir():
        yield Line("fault", f"data root {root} (MST_DATA_ROOT) does not exist", f"mkdir -p {root}")
        return
    there = [name for name in DATA_FOLDERS if (root / name).is_dir()]
    found = f"found {', '.join(there)}" if there else "no data set known to the configs; `mst sample-data` makes one"
    yield Line("ok" if there else "note", f"data root {root} ({origin}): {found}")


CHECKS = (
    check_python,
    check_packages,
    check_mm,
    check_mmcv,
    check_imports,
    check_operators,
    check_devices,
    check_shared_memory,
    check_data,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the findings; 0 without faults, 1 with."""
    parser = argparse.ArgumentParser(prog="mst doctor", description="Check the installation.")
    parser.parse_args(argv)
    faults = 0
    for line in (line for check in CHECKS for line in check()):
        faults += line.kind == "fault"
        print(f"{MARKS[line.kind]}  {line.what}" + (f"\n       mend it: {line.fix}" if line.fix else ""))
    print(f"\n{faults} fault{'' if faults == 1 else 's'} found" if faults else "\nno faults found")
    return 1 if faults else 0
