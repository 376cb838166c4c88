"""Every command and every line of Python in the pages does what it says: each page is run from top to bottom.

A page is a story: its blocks run in one folder, which looks like a checkout with a reader's files in it (``reader``).
What a test cannot run is marked in the page with its reason (``blocks.NEEDS``), and read by the commands' own parsers.
"""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import timm
import torch
from blocks import ROOT, Block, blocks_of, commands_of, parse
from commands import commands
from label_formats import write_labels
from small_vit import dino_full

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.py"))
NOT_SEEN = {".git", ".venv", ".venv-onedl", "data", "work_dirs", "shared"}  # of the checkout
SMALL = "mst train det_configs/mst_maskrcnn_sample.py"
# What a page says → what stands in for it: images of 96 px instead of 800.
STAND_INS = {
    "/data/": "data/",
    "mst train det_configs/mst_maskrcnn_coco.py": SMALL,
    "mst train my_det.py --dry-run": f"{SMALL} --cfg-options model.backbone.checkpoint=None --dry-run",
}


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of ``mst``, ``python`` and ``pip``."""
    with commands(tmp_path_factory.mktemp("programs")) as folder:
        yield folder


@pytest.fixture(scope="session")
def reader(programs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what a reader is said to have, small: photos, labels, checkpoints."""
    home = tmp_path_factory.mktemp("reader")
    sizes = "--num-train 20 --num-val 8 --num-photos 32".split()
    run(["mst", "sample-data", "data/sample", *sizes], home, programs)
    os.symlink("data/sample/photos", home / "photos")
    os.symlink("../photos", home / "data" / "my_photos")
    for place in (home, home / "data" / "mine"):
        place.mkdir(exist_ok=True)
        for split in ("train", "val"):
            os.symlink(home / "data/sample/coco" / split, place / split)
            shutil.copy(home / f"data/sample/coco/annotations/instances_{split}.json", place / f"{split}.json")
    for name in ("leftImg8bit", "gtFine"):
        os.symlink(home / "data/sample/cityscapes" / name, home / "data" / "mine" / name)
    write_labels(home / "data/sample/coco", home)
    torch.manual_seed(0)
    small = [timm.create_model("vit_small_patch16_224", num_classes=0, depth=2) for _ in range(2)]
    torch.save(dino_full(*small), home / "checkpoint.pth")
    torch.save(small[0].state_dict(), home / "dino_deitsmall16_pretrain.pth")
    dinov2 = timm.create_model("vit_small_patch14_dinov2", num_classes=0, depth=1, img_size=224)
    torch.save(dinov2.state_dict(), home / "dinov2_vits14_pretrain.pth")
    run(["mst", "convert", "checkpoint.pth", "--to", "mst", "-o", "teacher.safetensors"], home, programs)
    for number, photo in enumerate(sorted((home / "photos").iterdir())):
        place = home / "data" / "pets" / ("val" if number % 4 == 0 else "train") / f"class_{number % 3}"
        place.mkdir(parents=True, exist_ok=True)
        os.symlink(photo.resolve(), place / photo.name)
    detector = ["det_configs/mst_maskrcnn_sample.py", "--work-dir", "detector"]
    run(["mst", "train", *detector, "--cfg-options", "model.backbone.checkpoint=None"], home, programs)
    return home


@pytest.fixture
def folder(reader: Path, tmp_path: Path) -> Path:
    """Where a page is run: links to the checkout, and to the reader's files."""
    for home in (ROOT, reader):
        for path in home.iterdir():
            if home != ROOT or path.name not in NOT_SEEN:
                os.symlink(path, tmp_path / path.name)
    (tmp_path / "work_dirs").mkdir()
    os.symlink(reader / "detector", tmp_path / "work_dirs" / "detector")
    return tmp_path


def run(words: list[str], folder: Path, programs: Path) -> str:
    """Runs a program in a folder; what it prints.

    Raises:
        AssertionError: its status is not 0.
    """
    env = {name: value for name, value in os.environ.items() if not name.startswith(("MST_", "VIRTUAL_ENV"))}
    env |= {"PATH": f"{programs}:{env['PATH']}", "PYTHON": str(programs / "python"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, f"{shlex.join(words)}\nstatus {done.returncode}\n{done.stdout[-4000:]}"
    return done.stdout


def run_block(block: Block, folder: Path, programs: Path) -> None:
    """Runs a block, or writes the file that it is; a config's model is built."""
    text = block.text
    for name, stand_in in STAND_INS.items():
        text = text.replace(name, stand_in)
    if block.language == "bash":
        run(["bash", "-euo", "pipefail", "-c", text], folder, programs)
        return
    name = block.file or f"line_{block.line}.py"
    (folder / name).write_text(text)
    run(["mst", "complexity", name] if text.startswith("_base_") or block.file else ["python", name], folder, programs)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_a_page(page: Path, request: pytest.FixtureRequest) -> None:
    blocks, faults = blocks_of(page.read_text(encoding="utf-8")), []
    for block in blocks:
        try:
            if block.language == "bash":
                for words in commands_of(block):
                    parse(words)
            elif block.language == "python":
                compile(block.text, f"{page.name}, line {block.line}", "exec")
        except (ValueError, SyntaxError) as error:
            faults.append(f"{page.name}, line {block.line}: {error}")
    assert not faults, "\n".join(faults)
    for block in blocks:
        if block.language in ("bash", "python") and not block.needs:
            try:
                run_block(block, request.getfixturevalue("folder"), request.getfixturevalue("programs"))
            except AssertionError as error:
                faults.append(f"{page.name}, line {block.line}: {error}")
    assert not faults, "\n".join(faults)


@pytest.mark.slow
@pytest.mark.parametrize("tutorial", TUTORIALS, ids=lambda path: path.name)
def test_a_tutorial(tutorial: Path, tmp_path: Path, programs: Path) -> None:
    run(["python", str(tutorial)], tmp_path, programs)


def one(text: str) -> Block:
    (block,) = blocks_of(text)
    return block


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("mst pretain PHOTOS", "unknown verb"),
        ("mst pretrain PHOTOS --out O --minuts 3", "--minuts"),
        ("mst train det_configs/mst_maskrcn_coco.py", "no det_configs/mst_maskrcn_coco.py"),
        ("bash tools/dist_train.sh det_configs/mst_maskrcnn_coco.py 8 --acumulate auto", "--acumulate"),
        ("bash tools/slurm_train.sh P J det_configs/mst_maskrcnn_coco.py --acumulate auto", "--acumulate"),
        ("bash tools/quickstart.sh --sed 3", "--sed"),
        ("bash tools/nothing.sh", "no tools/nothing.sh"),
        ("python -m benchmarks.study pretrain --dat FOLDER", "--dat"),
        ("mst pretrain PHOTOS --out O [--minutes M | --epoch-number E]", "--epoch-number"),
        ("grep x y | mst inspect FILE --jso", "--jso"),
        ("msst inspect FILE", "msst"),
    ],
)
def test_a_wrong_command_is_seen(command: str, said: str) -> None:
    block = one(f"<!-- needs: names -->\n```bash\n{command}   # says so\n```\n")
    with pytest.raises(ValueError, match=said):
        for words in commands_of(block):
            parse(words)


def test_blocks_are_found() -> None:
    text = "a\n\n- b\n\n  ```python\n  if 1:\n      x = 2\n  ```\n<!-- needs: gpus -->\n```bash\nmst doctor\n```\n"
    first, second = blocks_of(text)
    assert first == Block(5, "python", "if 1:\n    x = 2\n", "") and second == Block(10, "bash", "mst doctor\n", "gpus")
    for wrong in ("```sh\nls\n```\n", "<!-- needs: luck -->\n```bash\nls\n```\n", "```bash\nls\n"):
        with pytest.raises(ValueError):
            blocks_of(wrong)


def test_a_block_that_fails_is_seen(folder: Path, programs: Path) -> None:
    for text in (
        "```bash\nmst inspect checkpoint.pth\nmst inspect nothing.pth\n```\n",
        "```python\nassert False\n```\n",
    ):
        with pytest.raises(AssertionError, match="status 1"):
            run_block(one(text), folder, programs)
    sys.stdout.flush()
