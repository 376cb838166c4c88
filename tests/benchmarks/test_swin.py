"""The Swin benchmark checks that all backbones agree and compares ours with each peer in both kinds of work."""

from benchmarks.swin import run


def test_rows_compare_inference_and_training_with_both_libraries() -> None:
    rows = run(quick=True)
    assert [(row.work.split(": ")[1], row.peer) for row in rows] == [
        (work, peer) for work in ("infer", "train") for peer in ("mmdet", "mmseg")
    ]
    assert all(row.ratio is not None and row.ratio > 0 for row in rows)
    assert all("saved" in row.note for row in rows[2:])
