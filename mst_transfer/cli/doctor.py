"""``mst doctor``: what is installed, what it runs on, and for each fault the command that mends it."""

import argparse
import importlib
import os
import platform
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

DISTRIBUTION = "mst-transfer"
DATA_FOLDERS = ("sample", "coco", "cityscapes", "ade", "imagenet", "coco_mini", "camvid", "photos")
SMALL_SHARED_MEMORY = 512 * 2**20  # bytes; containers often get 64 MiB, too little for data loader workers


MARKS = {"ok": "ok   ", "note": "note ", "fault": "FAULT"}


@dataclass(frozen=True)
class Finding:
    """One line of the report; a check yields some and raises nothing.

    Attributes:
        kind: ``ok``, ``note`` (nothing to mend) or ``fault``.
        what: What was found.
        fix: The command that mends it, for a fault.
    """

    kind: str
    what: str
    fix: str = ""


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


def check_python() -> Iterator[Finding]:
    """Is this a supported interpreter?"""
    found = f"Python {platform.python_version()} ({sys.executable})"
    if (3, 10) <= sys.version_info[:2] < (3, 14):
        yield Finding("ok", found)
    else:
        yield Finding("fault", f"{found}: 3.10 to 3.13 is supported", "python3.12 -m venv .venv, and install again")


def check_packages() -> Iterator[Finding]:
    """Is every requirement installed in a supported version?"""
    from packaging.requirements import Requirement

    try:
        lines = requires(DISTRIBUTION) or []
    except PackageNotFoundError:
        yield Finding("fault", f"{DISTRIBUTION} is not installed", f"pip install {constraints()}-e .")
        return
    for line in lines:
        requirement = Requirement(line)
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        name = requirement.name
        if name in ("mmcv", "mmcv-lite"):
            continue  # either will do: check_mmcv
        found = installed_version(name)
        if found is None and name == "opencv-python":
            name, found = "opencv-python-headless", installed_version("opencv-python-headless")
        wanted = f"'{requirement.name}{requirement.specifier}'"
        if found is None:
            yield Finding("fault", f"{requirement.name} is not installed", f"pip install {wanted}")
        elif not requirement.specifier.contains(found, prereleases=True):
            yield Finding("fault", f"{name} {found}: {requirement.specifier} is needed", f"pip install {wanted}")
        else:
            yield Finding("ok", f"{name} {found}")


def check_mmcv() -> Iterator[Finding]:
    """Is exactly one of mmcv and mmcv-lite there? They install the same files."""
    found = {name: installed_version(name) for name in ("mmcv", "mmcv-lite")}
    there = [f"{name} {number}" for name, number in found.items() if number]
    lite = "pip install 'mmcv-lite>=2.0.0rc4,<2.2'"
    if not there:
        yield Finding("fault", "neither mmcv nor mmcv-lite is installed", lite)
    elif len(there) == 2:
        yield Finding(
            "fault",
            f"{' and '.join(there)} are both installed and overwrite each other's files",
            f"pip uninstall -y mmcv mmcv-lite && {lite}",
        )
    else:
        yield Finding("ok", there[0])


def check_imports() -> Iterator[Finding]:
    """Can the libraries be imported?"""
    seen: set[str] = set()
    names = ("torch", "torchvision", "cv2", "timm", "mmengine", "mmcv", "mmdet", "mmseg", "pycocotools.mask")
    for name in names:
        try:
            importlib.import_module(name)
        except Exception as error:  # whatever a broken installation raises
            what = f"{type(error).__name__}: {error}"
            if what not in seen:  # else a consequence of the one before
                yield Finding("fault", f"import {name} fails: {what}", import_fix(name, error))
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
    return f"pip install --force-reinstall --no-deps {constraints()}{_distribution_of(name)}"


def _distribution_of(module: str) -> str:
    names = {"cv2": "opencv-python", "mmcv": "mmcv-lite", "mmseg": "mmsegmentation"}
    return names.get(module, module.split(".")[0])


def check_operators() -> Iterator[Finding]:
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
        yield Finding("fault", f"mmcv's operators fail: {type(error).__name__}: {error}", fix)
    else:
        source = "mmcv's own, compiled" if ops.backend() == "compiled" else "torchvision's, for mmcv-lite"
        yield Finding("ok", f"operators: {source}")


def check_devices() -> Iterator[Finding]:
    """Which devices does torch see?"""
    try:
        import torch
    except Exception:  # said by check_imports
        return
    from mst_transfer.runs.launch import num_cores

    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        yield Finding("ok", f"GPU {index}: {properties.name}, {properties.total_memory / 2**30:.0f} GiB")
    if not torch.cuda.is_available():
        driver = shutil.which("nvidia-smi") or Path("/proc/driver/nvidia/version").exists()
        if driver and torch.version.cuda is None:
            fix = "pip install --force-reinstall torch torchvision, from an index with CUDA builds"
            yield Finding("fault", f"an NVIDIA driver is here, but torch {torch.__version__} has no CUDA", fix)
        elif driver:
            yield Finding(
                "fault",
                f"an NVIDIA driver is here, but torch (CUDA {torch.version.cuda}) sees no GPU",
                "nvidia-smi shows GPUs and driver version: update the driver, or unset CUDA_VISIBLE_DEVICES",
            )
        else:
            yield Finding("note", "no GPU: everything runs on the CPU")
    yield Finding("ok", f"CPU: {num_cores()} cores")


def check_shared_memory() -> Iterator[Finding]:
    """Is there room for what data loader workers pass on?"""
    folder = Path("/dev/shm")
    if folder.is_dir():
        free = shutil.disk_usage(folder).free
        if free < SMALL_SHARED_MEMORY:
            found = f"/dev/shm has {free / 2**20:.0f} MiB free"
            fix = "start the container with --shm-size=8g, or set num_workers=0 in the config's data loaders"
            yield Finding("fault", f"{found}: data loader workers may crash", fix)


def check_data() -> Iterator[Finding]:
    """Which data sets are under the data root?"""
    named = os.environ.get("MST_DATA_ROOT")
    root = Path(named or "data")
    origin = "MST_DATA_ROOT" if named else "default; MST_DATA_ROOT names another"
    if named and not root.is_dir():
        yield Finding("fault", f"data root {root} (MST_DATA_ROOT) does not exist", f"mkdir -p {root}")
        return
    there = [name for name in DATA_FOLDERS if (root / name).is_dir()]
    found = f"found {', '.join(there)}" if there else "no data set known to the configs; `mst sample-data` makes one"
    yield Finding("ok" if there else "note", f"data root {root} ({origin}): {found}")


ALL: tuple[Callable[[], Iterator[Finding]], ...] = (
    check_python,
    check_packages,
    check_mmcv,
    check_imports,
    check_operators,
    check_devices,
    check_shared_memory,
    check_data,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the findings.

    Returns:
        0 without faults, 1 with.
    """
    parser = argparse.ArgumentParser(prog="mst doctor", description="Check the installation.")
    parser.parse_args(argv)
    faults = 0
    for check in ALL:
        for finding in check():
            faults += finding.kind == "fault"
            print(f"{MARKS[finding.kind]}  {finding.what}")
            if finding.fix:
                print(f"       mend it: {finding.fix}")
    print(f"\n{faults} fault{'' if faults == 1 else 's'} found" if faults else "\nno faults found")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
