"""A Hugging Face Hub in a thread: the calls of huggingface_hub that look, download, make, upload and commit."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

TOKEN = "hf_secretsecretsecret"


@dataclass
class Repository:
    """Files of each commit, and the commit of each branch."""

    private: bool = False
    gated: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)

    def commit(self, files: dict[str, bytes], branch: str = "main") -> str:
        content = {**self.commits.get(self.branches.get(branch, ""), {}), **files}
        text = repr([(name, hashlib.sha1(one).hexdigest()) for name, one in sorted(content.items())])
        sha = hashlib.sha1(text.encode()).hexdigest()
        self.commits[sha], self.branches[branch] = content, sha
        return sha


class FakeHub:
    """Repositories by name, what was asked for, and faults of the connection."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.large: dict[str, bytes] = {}  # uploads of large files, by SHA-256
        self.asked: list[str] = []
        self.cuts: list[int] = []  # the next downloads are cut after so many bytes
        self.shortens = False  # a download ends early, with a length that says so
        self.url = ""

    def add(self, name: str, files: dict[str, bytes], **options: Any) -> str:
        """Puts files into a repository; its commit."""
        return self.repositories.setdefault(name, Repository(**options)).commit(files)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: FakeHub

    def log_message(self, *words: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_POST = do_PUT = do_GET

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.hub.asked.append(f"{self.command} {path}")
        given = self.headers.get("Authorization", "")
        if given and given != f"Bearer {TOKEN}":
            self._send(401, {"error": f"no such token: {given}"}, {"X-Error-Message": WRONG_TOKEN})
        elif path == "/api/validate-yaml":
            self._send(200, {"errors": [], "warnings": []})
        elif path == "/api/repos/create":
            self._create(json.loads(body), given)
        elif path.startswith("/lfs/"):
            self.hub.large[path.removeprefix("/lfs/")] = body
            self._send(200, {})
        elif found := re.fullmatch(r"(?:/api/models)?/([\w.-]+/[\w-]+(?:\.[\w-]+)*?)(\.git)?(/.*)?", path):
            self._of_repository(found[1], (found[3] or "").strip("/"), body, bool(given))
        else:
            self._send(404, {"error": path})

    def _create(self, wish: dict[str, Any], given: str) -> None:
        name = f"{wish['organization']}/{wish['name']}"
        if not given or wish["organization"] == "others":
            self._send(403, {"error": "you may not"}, {"X-Error-Message": f"not with {given}"})
            return
        self.hub.repositories[name] = Repository(
            private=wish.get("visibility") == "private" or bool(wish.get("private"))
        )
        self.hub.repositories[name].commit({".gitattributes": b""})
        self._send(200, {"url": f"{self.hub.url}/{name}", "name": name})

    def _of_repository(self, name: str, rest: str, body: bytes, known: bool) -> None:
        repository = self.hub.repositories.get(name)
        if repository is None or (repository.private and not known):
            self._send(404 if known else 401, {"error": "not found"}, {"X-Error-Code": "RepoNotFound"})
            return
        what, _, revision = rest.partition("/")
        if what == "info":
            objects = json.loads(body)["objects"]
            for one in objects:
                one["actions"] = {"upload": {"href": f"{self.hub.url}/lfs/{one['oid']}"}}
            self._send(200, {"transfer": "basic", "objects": objects})
        elif what == "preupload":
            files = json.loads(body)["files"]
            modes = {True: "lfs", False: "regular"}
            paths = [dict(path=one["path"], uploadMode=modes[one["path"].endswith(".safetensors")]) for one in files]
            self._send(200, {"files": [{**one, "shouldIgnore": False} for one in paths]})
        elif what == "branch":
            repository.branches[revision] = repository.branches["main"]
            self._send(200, {})
        elif what == "commit":
            self._commit(name, repository, revision, body)
        else:
            revision = revision or "main"
            file = ""
            if what == "resolve":
                revision, _, file = revision.partition("/")
            commit = repository.branches.get(revision, revision)
            if commit not in repository.commits:
                self._send(404, {"error": "no revision"}, {"X-Error-Code": "RevisionNotFound"})
            elif what == "resolve":
                self._resolve(repository, commit, file)
            else:
                names = [{"rfilename": file} for file in repository.commits[commit]]
                self._send(200, dict(id=name, sha=commit, private=repository.private, siblings=names))

    def _commit(self, name: str, repository: Repository, branch: str, body: bytes) -> None:
        files = {}
        for line in map(json.loads, body.splitlines()):
            one = line["value"]
            if line["key"] == "file":
                files[one["path"]] = base64.b64decode(one["content"])
            elif line["key"] == "lfsFile":
                files[one["path"]] = self.hub.large[one["oid"]]
                assert hashlib.sha256(files[one["path"]]).hexdigest() == one["oid"]
        sha = repository.commit(files, branch)
        self._send(200, dict(success=True, commitOid=sha, commitUrl=f"{self.hub.url}/{name}/commit/{sha}"))

    def _resolve(self, repository: Repository, commit: str, file: str) -> None:
        content = repository.commits[commit].get(file)
        if repository.gated:
            self._send(403, {"error": "gated"}, {"X-Error-Code": "GatedRepo"})
            return
        if content is None:
            self._send(404, {"error": "no entry"}, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
            return
        start = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        first = int(start[1]) if start else 0
        self.send_response(206 if start else 200)
        sent = content[first:]
        if self.hub.shortens and self.command == "GET":
            sent = sent[:-100]
        for header, value in {
            "ETag": f'"{hashlib.sha256(content).hexdigest()}"',
            "X-Repo-Commit": commit,
            "X-Linked-Size": str(len(content)),
            "Content-Length": str(len(sent)),
            **({"Content-Range": f"bytes {first}-{len(content) - 1}/{len(content)}"} if start else {}),
        }.items():
            self.send_header(header, value)
        self.end_headers()
        if self.command == "GET":
            if self.hub.cuts:
                sent, self.close_connection = sent[: self.hub.cuts.pop(0)], True
            self.wfile.write(sent)

    def _send(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
        text = json.dumps(content).encode()
        self.send_response(status)
        for name, value in {
            "Content-Type": "application/json",
            "Content-Length": str(len(text)),
            **(headers or {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)


WRONG_TOKEN = "Invalid credentials in Authorization header"


@contextmanager
def fake_hub(folder: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub that huggingface_hub asks in this process, with a cache in a folder, and with its programs' variables."""
    from huggingface_hub import close_session, constants

    from mst_transfer.checkpoint.hf_hub import fetch

    hub = FakeHub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, kwargs=dict(poll_interval=0.05), daemon=True).start()
    variables = dict(HF_ENDPOINT=hub.url, HF_HOME=str(folder), HF_HUB_DISABLE_XET="1", HF_HUB_DISABLE_TELEMETRY="1")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    for name, value in dict(
        ENDPOINT=hub.url,
        HUGGINGFACE_CO_URL_TEMPLATE=hub.url + "/{repo_id}/resolve/{revision}/{filename}",
        HF_HUB_CACHE=str(folder / "hub"),
        HF_TOKEN_PATH=str(folder / "token"),
        HF_HUB_DISABLE_XET=True,
        HF_HUB_OFFLINE=False,
    ).items():
        monkeypatch.setattr(constants, name, value)
    fetch.cache_clear()
    close_session()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        close_session()
        fetch.cache_clear()
