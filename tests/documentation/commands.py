"""``mst``, ``python`` and ``pip`` for the blocks of a page: each is a fork of one server that has all libraries.

Otherwise each of a hundred commands would import torch and mmdet for ten seconds; what they do afterwards is what a
user's do. Long ones are made short on the way (``shortened``); pip, which would install this project again, only looks
at what it is given.
"""

import contextlib
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

PRELOADED = (
    "torch",
    "mst_transfer.cli.main",
    "mst_transfer.engine.run",
    "mst_transfer.card.evaluate",
    "pretrain.run.train",
)
PRELOADED += (
    "mst_transfer.models",
    "mst_transfer.datasets",
    "mst_transfer.probes.protocols",
    "mmdet.models",
    "mmseg.models",
)
CLIENT = """#!{python} -IS
import json, os, socket, sys
words = [os.path.basename(sys.argv[0]), *sys.argv[1:]], os.getcwd(), dict(os.environ)
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    message = json.dumps(words).encode() + b"\\0"
    socket.send_fds(server, [message[:1]], [0, 1, 2])
    server.sendall(message[1:])
    sys.exit(server.recv(1)[0])
"""


def shortened(words: list[str]) -> list[str]:
    """The command, made to end soon."""
    if words[:2] == ["mst", "pretrain"] and "--out" in words and "--dry-run" not in words:
        for option in {"--minutes", "--epochs"} & set(words):
            del words[words.index(option) : words.index(option) + 2]
        return [*words, "--epochs", "1"]
    if words[:2] == ["mst", "train"] and not {"--check-only", "--dry-run"} & set(words):
        place = words.index("--cfg-options") + 1 if "--cfg-options" in words else len(words)
        return [*words[:place], *["--cfg-options"] * (place == len(words)), "train_cfg.max_epochs=1", *words[place:]]
    return words


def run_python(words: list[str]) -> None:
    """``python`` with these words."""
    while words and words[0] == "-u":
        words = words[1:]
    if words[:1] == ["-m"]:
        sys.argv = words[1:]
        sys.path[0] = os.getcwd()
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    elif words[:1] == ["-c"]:
        sys.argv = ["-c", *words[2:]]
        exec(compile(words[1], "<command line>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv = list(words)
        sys.path[0] = str(Path(words[0]).parent)
        runpy.run_path(words[0], run_name="__main__")


def look_at_pip(words: list[str]) -> None:
    """Refuses files that are not there."""
    for name in ("-c", "-e"):
        if name in words and not Path(words[words.index(name) + 1].partition("[")[0]).exists():
            raise FileNotFoundError(f"pip {' '.join(words)}")


def run(words: list[str]) -> int:
    """Runs a command in this process; the exit status."""
    try:
        program, *rest = shortened(words)
        if program == "mst":
            from mst_transfer.cli.main import main

            sys.argv = ["mst", *rest]
            return main(rest)
        (look_at_pip if program == "pip" else run_python)(rest)
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def serve(address: str) -> None:
    """Forks a process for each command, until the standard input ends."""
    for name in PRELOADED:
        importlib.import_module(name)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen(64)
        print("ready", flush=True)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        while True:
            client, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                answer(client)
            client.close()


def answer(client: socket.socket) -> None:
    """A fork's whole life: a second fork does what is asked for, its status is sent back."""
    message, files, _, _ = socket.recv_fds(client, 1, 3)
    while not message.endswith(b"\0"):
        message += client.recv(1 << 16)
    words, folder, environment = json.loads(message[:-1])
    child = os.fork()
    if child == 0:
        client.close()
        for number, file in enumerate(files):
            os.dup2(file, number)
            os.close(file)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        sys.executable = environment["PYTHON"]
        status = run(words)
        with contextlib.suppress(BrokenPipeError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    client.sendall(bytes([status if status >= 0 else 128 - status]))
    os._exit(0)


@contextlib.contextmanager
def commands(folder: Path) -> Iterator[Path]:
    """A folder with the three programs, which work as long as the context lasts."""
    programs, address = folder / "bin", str(folder / "server")
    programs.mkdir()
    for name in ("mst", "python", "pip"):
        (programs / name).write_text(CLIENT.format(python=sys.executable, address=address))
        (programs / name).chmod(0o755)
    server = subprocess.Popen([sys.executable, __file__, address], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None and "ready\n" in iter(server.stdout.readline, "")  # libraries may say more
        yield programs
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    serve(sys.argv[1])
