"""The augmentation benchmark compares the same photographs, and ours is the faster one."""

from benchmarks.augment import run


def test_rows_compare_two_sizes_with_and_without_normalisation() -> None:
    rows = run(quick=True)
    compared = [row for row in rows if row.peer]
    ours = ["ours", "ours, reduced_decoding", "ours, photometric='device'", "ours + normalize"]
    assert [row.ours for row in compared] == ours * 2
    assert all(row.peer == "torchvision + PIL" and row.unit == "ms/image" for row in compared)
    assert all(row.ratio is not None and row.ratio > 1 for row in compared)
    assert "500x375" in rows[0].work and "2000x1500" in rows[-2].work
    assert [row.work for row in rows if not row.peer] == [
        f"photometry of 2x224 + 8x96, batch {size}, one core" for size in (4, 2)
    ]
