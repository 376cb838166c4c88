"""Words given to the launchers stay words: names with blanks, quotes and substitutions run nothing."""

import os
import subprocess
from pathlib import Path

import pytest

EVIL = "a b'c\"$(touch canary)`touch canary`;touch canary|&<>*?[x]\\ ~ {1,2} !x"


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("dist_train.sh", [EVIL, "1", "--work-dir", EVIL]),
        ("dist_test.sh", [EVIL, EVIL, "1", "--work-dir", EVIL]),
        ("pretrain.sh", [EVIL, "1", "--work-dir", EVIL]),
        ("eval_knn.sh", [EVIL, EVIL, "1"]),
        ("eval_linear.sh", [EVIL, EVIL, "1"]),
        ("pretrain.sh", ["x.py", EVIL]),
        ("dist_train.sh", ["x.py", "a[$(touch canary)]"]),
        ("slurm_train.sh", [EVIL, EVIL, EVIL, EVIL]),
        ("slurm_pretrain.sh", [EVIL, EVIL, EVIL, EVIL]),
    ],
)
def test_words_stay_words(script: str, words: list[str], tmp_path: Path, root: Path) -> None:
    fakes = tmp_path / "bin"
    fakes.mkdir()
    for name in ("srun", "fakepython"):
        (fakes / name).write_text(
            f'#!/bin/bash\nprintf "%s\\0" "$@" > "{tmp_path}/{name}.words"\n[ "$1" != - ] || echo 0 2 1\n'
        )
        (fakes / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{fakes}:{os.environ['PATH']}", "PYTHON": str(fakes / "fakepython")}
    environment.pop("VIRTUAL_ENV", None)
    environment["SLURM_JOB_ID"] = ""
    here = tmp_path / "here"
    here.mkdir()
    done = subprocess.run(
        ["bash", str(root / "tools" / script), *words], cwd=here, env=environment, capture_output=True, text=True,
        timeout=600,
    )  # fmt: skip
    assert not any(tmp_path.rglob("canary")), done
    written = [path.read_text().split("\0") for path in tmp_path.glob("*.words")]
    if done.returncode == 0:
        assert any(EVIL in found for found in written), (done, written)
