"""The processor's own words, and whose memory is whose."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest

from mst_transfer.devices import processor

FAULTS = """
import resource
from mst_transfer.devices.processor import keep_freed_memory
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        b"x" * 2**26
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
given_back = faults()
keep_freed_memory()
faults()
print(given_back, faults())
"""


def test_fields_of_the_first_core(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "cpuinfo"
    monkeypatch.setattr(processor, "Path", lambda _: info)
    assert processor.cpu_info("model name") == ""
    info.write_text("processor\t: 0\nvendor_id\t: A\nmodel name\t: A 1: x\n\nvendor_id\t: B\n")
    assert (processor.cpu_info("vendor_id"), processor.cpu_info("model name")) == ("A", "A 1: x")
    assert processor.cpu_info("bogomips") == ""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_freed_memory_is_taken_again_without_the_system() -> None:
    run = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    given_back, kept = map(int, run.stdout.split())
    assert given_back >= 4 * 32 and kept < 4  # pages of 64 MB: 16,384, or 32 huge ones
