"""Code blocks of the documentation's pages: where they stand, what they need, and whether their commands are sound."""

import argparse
import contextlib
import glob
import importlib
import io
import os
import re
import runpy
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from unittest import mock

ROOT = Path(__file__).resolve().parents[2]
LANGUAGES = {"bash", "python", "bibtex", "yaml", ""}  # the first two are run; "" is what a program prints
# Before a block that is not run, in the page: <!-- needs: gpus -->
NEEDS = {
    "names": "a form: words in capitals and brackets stand for the reader's own",
    "gpus": "GPUs, or the hours that the same takes without",
    "data": "ImageNet, COCO, Cityscapes, ADE20K, or photographs that are not in the repository",
    "time": "more than a minute",
    "slurm": "a cluster",
    "network": "a service elsewhere, and an account there",
    "sources": "another project's code or weights",
}
FENCE = re.compile(r"^(?P<indent> *)(?P<fence>`{3,}|~{3,})(?P<info>[^\n]*)\n(?P<body>.*?)^ *(?P=fence) *$", re.M | re.S)
MARK = re.compile(r"<!-- needs: (.*?) -->\s*$")
CONFIG = re.compile(r"(?:det_configs|seg_configs|pretrain/configs)/[\w/*{},]+\.py")
NUMBERS = re.compile(r"N|M|E|H|W|PX|R|G|B|NGPUS|NODES")  # in a form
OTHERS = set("cat cd curl export grep ls mypy parallel pip ruff scontrol sha256sum source tar".split())


class Block(NamedTuple):
    """A fenced block; ``needs`` is why it is not run, "" where it is."""

    line: int
    language: str
    text: str
    needs: str

    @property
    def file(self) -> str:
        """The name in its first line, ``# my_det.py``: the block is that file."""
        found = re.match(r"# (\w+\.py)\n", self.text)
        return found[1] if found else ""


def blocks_of(text: str) -> list[Block]:
    """The blocks of a page in their order.

    Raises:
        ValueError: a language or a reason that is not known; a fence without an end.
    """
    found, rest = [], text
    for match in FENCE.finditer(text):
        indent, info = match["indent"], match["info"].strip()
        line = text.count("\n", 0, match.start()) + 1
        if info not in LANGUAGES:
            raise ValueError(f"line {line}: language {info!r}; known are {', '.join(sorted(LANGUAGES))}")
        mark = MARK.search(text[: match.start()])
        if mark and mark[1] not in NEEDS:
            raise ValueError(f"line {line}: needs {mark[1]!r}; known are {', '.join(NEEDS)}")
        body = "".join(row.removeprefix(indent) for row in match["body"].splitlines(keepends=True))
        found.append(Block(line, info, body, mark[1] if mark else ""))
        rest = rest.replace(match[0], "")
    if re.search(r"^ *(```|~~~)", rest, re.M):
        raise ValueError("a fence has no end")
    return found


def forms(line: str) -> Iterator[str]:
    """A form without brackets: each alternative of ``[--minutes M | --epochs E]`` in a line of its own."""
    line = re.sub(r"(?<=\w)\|\w+", "", line)
    most = max([1, *(inner.count("|") + 1 for inner in re.findall(r"\[(?! )([^][]*)\]", line))])
    for number in range(most):

        def chosen(match: re.Match, number: int = number) -> str:
            ways = match[1].split("|")
            return ways[min(number, len(ways) - 1)]

        one, before = line, ""
        while one != before:
            one, before = re.sub(r"\[(?! )([^][]*)\]", chosen, one), one
        yield one


def commands_of(block: Block) -> Iterator[list[str]]:
    """The words of each command: without comments, variables set before it, pipes and conditions."""
    for line in block.text.replace("\\\n", " ").splitlines():
        for one in forms(line) if block.needs else [line]:
            reader = shlex.shlex(one, posix=True, punctuation_chars=True)
            reader.commenters = "#"
            reader.whitespace_split = True
            words: list[str] = []
            for word in [*reader, ";"]:
                if word[0] in ";|&(){}" or word in ("{", "}"):
                    if words and words[0] not in ("[", "exit"):
                        yield words
                    words = []
                elif words or not re.match(r"\w+=", word):
                    words.append(word)


class _Parsed(BaseException):
    pass


def parse(words: list[str]) -> None:
    """Has a command's own parser read it, whatever its files are.

    Raises:
        ValueError: no such program, verb, script, config or option.
    """
    words = ["1" if NUMBERS.fullmatch(word) else word for word in words if word not in ("…", "...", "options")]
    for word in words:
        for name in CONFIG.findall(word):
            names = [name]
            while any("{" in one for one in names):
                names = [one for name in names for one in _braces(name)]
            if missing := [one for one in names if not glob.glob(str(ROOT / one))]:
                raise ValueError(f"no {', '.join(missing)}")
    program, rest = words[0], words[1:]
    if program == "bash":
        words = _launched(rest)
        program, rest = words[0], words[1:]
    if program in OTHERS:
        return
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        try:
            with mock.patch.multiple(
                argparse.ArgumentParser, parse_args=_parse_args, parse_known_args=_parse_known_args
            ):
                _begin(program, rest)
        except _Parsed:
            return
        except SystemExit:
            pass
    raise ValueError(f"{shlex.join(words)}: {said.getvalue().strip() or 'its options were not read'}")


_known = argparse.ArgumentParser.parse_known_args


def _parse_args(self: argparse.ArgumentParser, args=None, namespace=None) -> None:
    self.allow_abbrev = False
    _, unknown = _known(self, args, namespace)
    if unknown:
        self.error(f"unrecognized arguments: {' '.join(unknown)}")
    raise _Parsed


def _parse_known_args(self: argparse.ArgumentParser, args=None, namespace=None) -> tuple:
    self.allow_abbrev = False
    parsed, unknown = _known(self, args, namespace)
    if unknown:
        return parsed, unknown  # the program hands them on, or refuses them
    raise _Parsed


def _braces(name: str) -> list[str]:
    inner = re.search(r"\{([^{}]*)\}", name)
    return [name.replace(inner[0], one, 1) for one in inner[1].split(",")] if inner else [name]


def _begin(program: str, words: list[str]) -> None:
    if program == "mst":
        importlib.import_module("mst_transfer.cli.main").main(words)
    elif program == "mst-pretrain":
        importlib.import_module("pretrain.run.train").main(words)
    elif program == "python" and words[:2] == ["-m", "pytest"]:
        if missing := [word for word in words[2:] if "/" in word and not (ROOT / word).exists()]:
            raise ValueError(f"no {', '.join(missing)}")
        raise _Parsed
    elif program == "python":
        is_module = words[0] == "-m"
        words = words[is_module:]
        path = [str(ROOT)] if is_module else [str(ROOT), str((ROOT / words[0]).parent)]
        with mock.patch.object(sys, "argv", list(words)), mock.patch.object(sys, "path", [*path, *sys.path]):
            (runpy.run_module if is_module else runpy.run_path)(
                words[0] if is_module else str(ROOT / words[0]), run_name="__main__"
            )
    else:
        raise ValueError(f"{program} is no program that the documentation uses")


def _launched(words: list[str]) -> list[str]:
    """The program that a script of ``tools/`` starts; for one that starts none, that its options are known to it."""
    script = ROOT / words[0]
    if not script.is_file():
        raise ValueError(f"no {words[0]}")
    text = script.read_text()
    if "_launch.sh" not in text:
        if unknown := [word for word in words[1:] if word.startswith("--") and word not in text]:
            raise ValueError(f"{words[0]} does not know {', '.join(unknown)}")
        return ["cd"]
    with tempfile.TemporaryDirectory() as folder:
        for name in ("python", "srun"):
            (Path(folder) / name).write_text("#!/bin/bash\nprintf '%s\\n' \"$@\"\n")
            (Path(folder) / name).chmod(0o755)
        env = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "PYTHON": f"{folder}/python"}
        env.pop("VIRTUAL_ENV", None)
        done = subprocess.run(["bash", script, *words[1:]], env=env, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    starts = [n for n, line in enumerate(lines) if re.fullmatch(r".*/tools/\w+\.py", line)]
    parts = [lines[begin:end] for begin, end in zip(starts, [*starts[1:], None], strict=True)]
    parts = [part for part in parts if not part[0].endswith("_torchrun.py")]
    if done.returncode or not parts:
        raise ValueError(f"{shlex.join(words)}: {done.stderr.strip()}")
    return ["python", *parts[0]]
