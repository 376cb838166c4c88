"""The study's analysis against least squares with a column for each block and cell, its tables, and its runs."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from benchmarks.gpu.whole_runs import draw_photos
from benchmarks.study import (
    CELLS,
    KNN,
    PRIMARY,
    collect,
    contrast_table,
    curves,
    estimate,
    figure_table,
    main,
    map_table,
    variation,
    weights,
)
from mst_transfer.runs.stop import SAVED


def made_up(blocks: int, decoder: float = 0.0, attention: float = 0.0, noise: float = 0.1) -> np.ndarray:
    random = np.random.default_rng(blocks)
    effects = [decoder * on + attention * (mask == "attention") for mask, on in CELLS.values()]
    return 40 + random.normal(0, 5, (blocks, 1)) + effects + random.normal(0, noise, (blocks, len(CELLS)))


def rows_of(figures: np.ndarray, measured=KNN) -> list[dict]:
    names = [f"{cell}_seed{block}" for block in range(len(figures)) for cell in CELLS]
    return [
        dict(measured._asdict(), checkpoint=name, value=float(value))
        for name, value in zip(names, figures.ravel(), strict=True)
    ]


@pytest.mark.parametrize("contrast", PRIMARY)
def test_contrasts_equal_least_squares(contrast):
    figures = made_up(3, decoder=1.0, noise=1.0)
    blocks, cells = figures.shape
    of_block, of_cell = np.divmod(np.arange(figures.size), cells)
    design = np.hstack([np.eye(blocks)[of_block], np.eye(cells)[of_cell][:, 1:]])  # the first cell is the reference
    inverse = np.linalg.inv(design.T @ design)
    fitted = inverse @ design.T @ figures.ravel()
    residual, freedom = figures.ravel() - design @ fitted, figures.size - design.shape[1]
    combination = np.concatenate([np.zeros(blocks), weights(contrast)[1:]])
    error = (residual @ residual / freedom * (combination @ inverse @ combination)) ** 0.5
    found = estimate(figures, weights(contrast), num_comparisons=3)
    assert found.value == pytest.approx(combination @ fitted)
    assert found.high - found.low == pytest.approx(2 * stats.t.ppf(0.975, freedom) * error)
    assert found.p_value == pytest.approx(2 * stats.t.sf(abs(found.value) / error, freedom))
    assert found.detectable == pytest.approx((stats.t.ppf(1 - 0.05 / 6, freedom) + stats.t.ppf(0.8, freedom)) * error)


def test_contrasts_are_those_of_the_page():
    cell = dict(zip(CELLS, np.random.default_rng(0).normal(size=6), strict=True))
    figures = np.array(list(cell.values()))
    on, off = ("decoder_only", "random_mask", "mst"), ("dino", "random_mask_only", "attention_mask_only")
    assert weights("decoder") @ figures == pytest.approx(
        np.mean([cell[a] - cell[b] for a, b in zip(on, off, strict=True)])
    )
    with_it, without = cell["mst"] - cell["random_mask"], cell["attention_mask_only"] - cell["random_mask_only"]
    assert weights("attention") @ figures == pytest.approx((with_it + without) / 2)
    assert weights("interaction") @ figures == pytest.approx(with_it - without)


def test_tables_say_what_whole_blocks_show():
    rows = rows_of(made_up(3, attention=2.0)) + rows_of(made_up(3, decoder=-1.0), PRIMARY["decoder"])
    rows = rows[:-1] + [dict(KNN._asdict(), checkpoint="random", value=27.8)]  # a cell of the third block is missing
    found = collect(rows)
    figures = figure_table(found).splitlines()
    assert len(figures) == 2 + 1 + len(CELLS) and "| random weights |  | 27.8 | – |" in figures
    assert figures[-1].startswith("| attention | on |") and figures[-1].count(" / ") == 2 + 1
    decoder, attention, interaction = (
        next(line for line in contrast_table(found).splitlines() if "**" in line and line.startswith(f"| {name} "))
        for name in PRIMARY
    )
    assert "| 2 | **worse by" in decoder and "| 3 | **better by" in attention and "**no difference" in interaction
    assert "fewer than two whole blocks" in contrast_table(collect(rows_of(made_up(1))))


def test_curves_of_a_resumed_run():
    rows = [dict(step=10, epoch=1, time=6.0, loss=3.0), dict(step=20, epoch=1, time=3.0, loss=2.0)]
    rows += [dict(step=30, epoch=2, time=6.0, loss=1.0), dict(step=30, val_knn=4.0)]
    minutes, last = curves(rows)
    assert minutes == pytest.approx((60 + 30 + 60) / 60) and last == {"loss": [2.0, 1.0]}


def test_twins_hide_as_many_patches() -> None:
    assert variation("mst", ["num_8"]) == ["model.masking.num=8", "model.backbone.patch_size=16"]  # 4 of 36
    assert variation("random_mask", ["num_8"])[0] == "model.masking.p=0.1111"
    options = variation("random_mask_only", ["patch_8", "num_8", "first_view"])  # 18 of 144
    assert options == ["model.masking.p=0.125", "model.masking.views=[0]", "model.backbone.patch_size=8"]
    assert variation("dino", ["patch_8", "first_view"]) == ["model.backbone.patch_size=8"]


def test_the_map_of_masks_pairs_twins() -> None:
    values = {
        "mst_seed0": 36.0,
        "random_mask_seed0": 37.0,
        "mst+patch_8_seed0": 40.0,
        "random_mask+patch_8_seed0": 38.0,
    }
    rows = [dict(KNN._asdict(), checkpoint=name, value=value) for name, value in values.items()]
    rows += [dict(PRIMARY["decoder"]._asdict(), checkpoint=name, value=7.0) for name in values]
    differences = [  # a card has each pair once, in any order
        dict(KNN._asdict(), a="random_mask_seed0", b="mst_seed0", difference=1.0, ci95=[-0.5, 2.5]),
        dict(KNN._asdict(), a="mst+patch_8_seed0", b="random_mask+patch_8_seed0", difference=2.0, ci95=[0.5, 3.5]),
    ]
    names = [dict(name=name) for name in [*values, "dino+patch_8_seed0", "random"]]
    lines = map_table(dict(rows=rows, differences=differences, checkpoints=names)).splitlines()[2:]
    assert lines == [
        "| mst+patch_8_seed0 | random_mask+patch_8_seed0 | 40.0 / 38.0: +2.0 (+0.5 … +3.5) | 7.0 / 7.0: – |",
        "| mst_seed0 | random_mask_seed0 | 36.0 / 37.0: -1.0 (-2.5 … +0.5) | 7.0 / 7.0: – |",
    ]


@pytest.mark.slow
def test_cells_side_by_side_stop_in_time_and_go_on(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    draw_photos(tmp_path / "photos" / "train", 64, 96, 96)
    words = ["pretrain", "--data", str(tmp_path), "--out", str(tmp_path / "runs"), "--results", str(tmp_path / "found")]
    words += ["--seeds", "3", "--cells", "dino", "mst", "--at-once", "2", "--epochs", "3"]
    assert main([*words, "--minutes", "0.02"]) == SAVED and not list((tmp_path / "found").glob("*.safetensors"))
    assert main(words) == 0
    for cell in ("dino", "mst"):
        found = json.loads((tmp_path / "found" / f"{cell}_seed3.json").read_text())
        assert (found["method"], found["seed"], found["at_once"]) == (cell, 3, 2)
        assert "train_cfg.max_epochs=3" in found["command"] and len(found["last_of_each_epoch"]["loss"]) == 3
        assert ("loss_restoring" in found["last_of_each_epoch"]) == (cell == "mst")
    assert main([*words[:-1], "4"]) == 2  # another length: not what is there
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "found").iterdir()}
    assert len(made) == 4 and main(words) == 0 and made == {path: path.stat().st_mtime_ns for path in made}


def test_other_figures_do_not_mix_with_the_study(capsys: pytest.CaptureFixture) -> None:
    for option in (["--epochs", "100"], ["--device", "cuda"], ["--vary", "num_8"]):
        with pytest.raises(SystemExit):
            main(["pretrain", *option])
        assert "--results" in capsys.readouterr().err
