"""Weights on the Hugging Face Hub, by address: ``hf://ORG/REPO[/FILE][@REVISION]``.

huggingface_hub fetches them once into its cache (``HF_HOME``), and takes them from there without a network.
"""

import functools
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_FORM = re.compile(r"hf:/+([\w.-]+/[\w.-]+)(?:/([^@]*[^@/]))?(?:@([^@]+))?")  # pathlib makes one slash of two
_BEST = "model.safetensors"
_KINDS = ((".safetensors",), (".pth", ".pt", ".bin"))  # of files, the better first
SECONDS = 5.0  # that the hub has to answer


def is_hub_address(path: str | Path) -> bool:
    """Whether a checkpoint is given by an address on the Hugging Face Hub."""
    return str(path).startswith("hf:/")


def parse_address(address: str) -> tuple[str, str, str]:
    """Repository, file and revision, empty where they are left open; ValueError: it has another form."""
    if (found := _FORM.fullmatch(address)) is None:
        raise ValueError(f"{address!r} must have the form hf://ORG/REPO[/FILE][@REVISION]")
    return found[1], found[2] or "", found[3] or ""


@functools.cache
def fetch(address: str) -> tuple[Path, str]:
    """Takes a file from huggingface_hub's cache, or downloads it; once a process.

    Args:
        address: without FILE ``model.safetensors`` is taken, else the only ``.safetensors`` of the repository, else
            its only ``.pth``, ``.pt`` or ``.bin``.

    Returns:
        The file in the cache, and its full address: with file and commit.

    Raises:
        ValueError: the hub can't be reached or refuses, the file is not there, or several could be meant; says which.
    """
    repo, file, revision = parse_address(address)
    hub = library(address)
    if file and re.fullmatch("[0-9a-f]{40}", revision):
        known = hub.try_to_load_from_cache(repo, file, revision=revision)
        if isinstance(known, str):
            return Path(known), address
    options: dict[str, Any] = dict(revision=revision or None)
    with explained(address, repo):
        names, silent = _contents(hub, address, repo, options)
    if silent and not file and _BEST not in names:
        raise ValueError(
            f"{address}: without the hub it is not known which of its files is meant; in the cache are "
            f"{', '.join(names)}. Next step: name one, hf://ORG/REPO/FILE"
        )
    file = file or _only_weights(address, names)
    with explained(address, repo):
        path = Path(hub.hf_hub_download(repo, file, etag_timeout=SECONDS, local_files_only=silent, **options))
    return path, f"hf://{repo}/{file}@{path.parents[file.count('/')].name}"


def library(purpose: str) -> Any:
    """The module ``huggingface_hub``; ValueError: it is not installed."""
    try:
        import huggingface_hub
    except ImportError as error:
        install = "pip install 'mst-transfer[hub]'"
        raise ValueError(f"{purpose}: huggingface_hub is not installed. Next step: {install}") from error
    return huggingface_hub


def _contents(hub: Any, address: str, repo: str, options: dict[str, Any]) -> tuple[list[str], bool]:
    """Names of a revision's files, as the hub says; if it is silent, of those in the cache, and True."""
    try:
        info = hub.HfApi().model_info(repo, timeout=SECONDS, **options)
        return [one.rfilename for one in info.siblings or ()], False
    except Exception as error:  # as in ``explained``
        if (_status(error) or 500) < 500:
            raise
        try:
            folder = Path(hub.snapshot_download(repo, local_files_only=True, **options))
        except hub.errors.LocalEntryNotFoundError:
            raise error from None
        if not isinstance(error, hub.errors.OfflineModeIsEnabled):
            what = f"the hub does not answer ({reason(error)}); taken from the cache: commit {folder.name}"
            warnings.warn(f"{address}: {what}", stacklevel=3)
        return [file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()], True


def _only_weights(address: str, names: Sequence[str]) -> str:
    found = [name for name in names if name == _BEST]
    for kind in _KINDS:
        found = found or sorted(name for name in names if name.endswith(kind))
    if len(found) != 1:
        what = (
            f"files could be meant: {', '.join(found)}" if found else f"of its files ({', '.join(names)}) are weights"
        )
        raise ValueError(f"{address}: {len(found) or 'none'} {what}. Next step: name one, hf://ORG/REPO/FILE")
    return found[0]


@contextmanager
def explained(address: str, repo: str) -> Iterator[None]:
    """Turns what huggingface_hub raises into a ``ValueError`` that names the repository and the next step."""
    from huggingface_hub import constants, errors

    try:
        yield
    except Exception as error:  # of the hub, its library, the network or the disk: there is no common base
        status, place = _status(error), f"{constants.ENDPOINT}/{repo}"
        what = f"{repo} at {constants.ENDPOINT}: {reason(error)}"
        then = (
            "the same command again; without a network a file's path, or HF_HUB_OFFLINE=1 with a full cache (HF_HOME)"
        )
        if isinstance(error, errors.GatedRepoError):
            what, then = f"{repo} is gated", f"ask for access at {place}, and log in: hf auth login"
        elif isinstance(error, errors.RepositoryNotFoundError):
            what = f"the hub has no repository {repo}, or does not show it to you ({status})"
            then = "look at the name; if it is private, log in: hf auth login"
        elif status == 404:
            what, then = f"{repo} has no such file or revision", f"look at {place}, or leave FILE and REVISION out"
        elif status in (401, 403):
            what, then = f"the hub refuses the token for {repo} ({reason(error)})", "hf auth login"
        raise ValueError(f"{address}: {what}. Next step: {then}") from error


def _status(error: Exception) -> int | None:
    """Of the hub's answer; None if there was none."""
    return getattr(getattr(error, "response", None), "status_code", None)


def reason(error: Exception) -> str:
    """Kind and first line of an error, without the token, which a proxy may send back."""
    from huggingface_hub import get_token

    text = str(error).strip().split("\n")[0].replace(get_token() or "\0", "TOKEN")[:200]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
