"""The processor's own words."""

from pathlib import Path

import pytest

from mst_transfer.devices import processor


def test_fields_of_the_first_core(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "cpuinfo"
    monkeypatch.setattr(processor, "Path", lambda _: info)
    assert processor.cpu_info("model name") == ""
    info.write_text("processor\t: 0\nvendor_id\t: A\nmodel name\t: A 1: x\n\nvendor_id\t: B\n")
    assert (processor.cpu_info("vendor_id"), processor.cpu_info("model name")) == ("A", "A 1: x")
    assert processor.cpu_info("bogomips") == ""
