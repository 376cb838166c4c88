"""``mst check``: a table of the data, and everything that stands in the way at once."""

from pathlib import Path

import pytest
from PIL import Image

from mst_transfer.cli.main import main


def test_sound_data_are_shown(tiny_seg_config: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["check", str(tiny_seg_config)]) == 0
    out = capsys.readouterr().out
    assert "train: " in out and "8 images" in out and "8 of 8 masks read" in out
    rows = [line.split() for line in out.splitlines() if line.strip().startswith(("0 dark", "1 light"))]
    assert [row[1] for row in rows] == ["dark", "light"]
    assert float(rows[0][2]) == 75 and float(rows[1][2]) == 25  # squares of 16 on ground of 32 pixels
    assert "nothing stands in the way" in out
    assert main(["train", str(tiny_seg_config), "--check-only", "--work-dir", str(tmp_path / "run")]) == 0
    assert "8 of 8 masks read" in capsys.readouterr().out and not (tmp_path / "run").exists()


def test_all_faults_are_said_and_the_table_still_shown(tiny_seg_config: Path, capsys: pytest.CaptureFixture) -> None:
    data = tiny_seg_config.parent / "tiny data"
    Image.new("L", (32, 32), 7).save(data / "masks" / "1.png")
    Image.new("L", (16, 32), 0).save(data / "masks" / "2.png")
    (data / "masks" / "3.png").unlink()
    assert main(["check", str(tiny_seg_config), "--cfg-options", "model.decode_head.num_classes=5"]) == 1
    out, error = capsys.readouterr()
    assert "1 light" in out and "nothing stands" not in out
    assert "mst check: 4 problems" in error
    for part in ("1.png holds 7", "2.png is 16 × 32, its image 32 × 32", "1 of 8 images have no mask", "num_classes=5"):
        assert part in error
    assert main(["train", str(tiny_seg_config), "--check-only"]) == 1
    assert main(["check", str(tiny_seg_config.with_name("none.py"))]) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith("mst check: ")
