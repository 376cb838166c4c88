"""The augmentation benchmark compares the same photographs, and ours is the faster one."""

from benchmarks.augment import run


def test_rows_compare_two_sizes_with_and_without_normalisation() -> None:
    rows = run(quick=True)
    ours = ["ours", "ours, reduced_decoding", "ours + normalize"]
    assert [row.ours for row in rows] == ours * 2
    assert all(row.ratio is not None and row.ratio > 1 for row in rows)
    assert "500x375" in rows[0].work and "2000x1500" in rows[-2].work
