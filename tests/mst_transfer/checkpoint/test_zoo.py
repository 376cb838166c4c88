"""The project's own checkpoints: whole, small, with the figures of their card, and found wherever one is named."""

import json
from pathlib import Path

import pytest

import mst_transfer
from benchmarks.gpu.whole_runs import draw_photos
from mst_transfer.card.checkpoints import open_checkpoints
from mst_transfer.checkpoint.addresses import ZOO, fetch, zoo_card, zoo_names
from mst_transfer.cli.main import main
from mst_transfer.files.checksums import sha256_of


@pytest.mark.parametrize("name", zoo_names())
def test_a_file_is_whole_and_has_the_figures_of_its_card(name: str, root: Path) -> None:
    path, card = ZOO / f"{name}.safetensors", zoo_card(name)
    assert sha256_of(path) == card["sha256"] and path.stat().st_size < 5e6 and (ZOO / "LICENSE-weights").is_file()
    model, report = mst_transfer.load_backbone(f"zoo://{name}")
    assert len(report.loaded) == len(model.state_dict()) and f"zoo://{name}" in report.table()
    measured = json.loads((root / "docs" / "results" / "photographs" / "card.json").read_text())
    (known,) = (one["name"] for one in measured["checkpoints"] if one["sha256"] == card["sha256"])
    rows = [row for row in measured["rows"] if row["checkpoint"] == known]
    assert len(rows) == len(card["figures"]) > 0
    for row, figure in zip(rows, card["figures"], strict=True):
        assert figure == {key: row[key] for key in figure}


def test_twins_differ_in_their_method_alone() -> None:
    cards = [zoo_card(name) for name in ("dino_nano", "mst_nano")]
    same = [{key: card[key] for key in ("network", "trained on", "epochs", "seed", "commit")} for card in cards]
    assert same[0] == same[1] and [card["method"] for card in cards] == ["DINO", "MST"]


def test_a_card_and_a_pre_training_take_an_address(tmp_path: Path) -> None:
    mine, random = open_checkpoints(["zoo://mst_nano", "random"])
    assert (mine.name, mine.path, mine.sha256) == ("mst_nano", "zoo://mst_nano", zoo_card("mst_nano")["sha256"])
    assert random.arch_kwargs == mine.arch_kwargs and mine.load_frozen(0).model.embed_dim == 128
    assert fetch("zoo:/mst_nano") == (ZOO / "mst_nano.safetensors", "zoo://mst_nano")  # what pathlib leaves of it
    draw_photos(tmp_path / "photos", 64, 96, 96)
    words = ["--work-dir", str(tmp_path / "run"), "--check-only", "--cfg-options", "model.init_from=zoo://mst_nano"]
    words += [f"train_dataloader.dataset.data_root={tmp_path}/photos"]
    assert main(["pretrain", "pretrain/configs/study/mst.py", *words]) == 0


def test_the_list_and_what_is_not_in_it(capsys: pytest.CaptureFixture) -> None:
    assert main(["zoo"]) == 0
    listed = capsys.readouterr().out
    assert all(f"zoo://{name} " in listed for name in zoo_names())
    assert main(["zoo", "mst_nano"]) == 0
    assert "LICENSE-weights" in capsys.readouterr().out
    assert main(["inspect", "zoo://mst_micro"]) == 1
    assert "mst_nano" in capsys.readouterr().err
