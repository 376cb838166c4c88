"""Figures of the paper are told alike wherever they stand."""

from pathlib import Path

import pytest


def passages(root: Path) -> list[tuple[str, str]]:
    """Table rows, and paragraphs or comments, of all pages and configs."""
    found = []
    for path in [root / "README.md", *(root / "docs").glob("*.md"), *(root / "det_configs").glob("*.py")]:
        text = path.read_text(encoding="utf-8").replace("\n#", "").replace("|\n", "|\n\n")
        found += [(path.name, " ".join(passage.split())) for passage in text.split("\n\n")]
    return found


@pytest.mark.parametrize("page", ["README.md", "recipes.md", "detection.md", "mst_maskrcnn_coco.py"])
def test_the_backbone_of_the_papers_coco_figure_is_nowhere_guessed(root: Path, page: str) -> None:
    """No source says with which backbone the paper has 42.7 box mAP; mmdet's supervised Swin-T has the same figure."""
    told = [(name, text) for name, text in passages(root) if "42.7" in text.replace("supervised 42.7", "")]
    assert page in {name for name, _ in told}
    for name, text in told:
        assert "backbone unknown" in text and "as far as known" not in text, (name, text)
