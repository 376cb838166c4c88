"""Publishes a backbone on the Hugging Face Hub, in the layout that timm and transformers load, with its figures."""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mst_transfer.card.page import read_card, render
from mst_transfer.checkpoint.hf_hub import SECONDS, explained, library
from mst_transfer.checkpoint.read import find_backbone
from mst_transfer.export.convert import convert
from mst_transfer.export.source_model import SourceModel, read_source_model
from mst_transfer.export.timm_layout import HUGGING_FACE
from mst_transfer.files.checksums import sha256_of


def push(
    checkpoint: str,
    repo: str,
    *,
    card: str | None = None,
    license: str = "",
    private: bool = False,
    revision: str = "",
    role: str | None = None,
    dry_run: bool = False,
) -> None:
    """``mst push``: converts, loads again and compares, and only then sends; prints what it does.

    Raises:
        FileNotFoundError, ValueError: no such file; it cannot be converted; the card has no figures of it; the hub
            refuses or is not reached.
    """
    hub = library(f"mst push {repo}")
    if repo.count("/") != 1:
        raise ValueError(f"{repo!r} must have the form ORG/REPO")
    hub.utils.validate_repo_id(repo)
    if not dry_run and hub.get_token() is None:
        raise ValueError(f"there is no token to write to {repo} with. Next step: hf auth login, or set HF_TOKEN")
    figures = read_card(Path(card)) if card else None
    of_run = Path(checkpoint) / f"{role or 'teacher'}.safetensors"
    path = str(of_run) if of_run.is_file() else checkpoint
    if figures and role and (evaluated := find_backbone(path, None).role) not in (None, role):
        raise ValueError(
            f"{card} has figures of the {evaluated} in {path}, not of its {role}. Next step: mst convert --role "
            f"{role}, then mst evaluate and push that file"
        )
    original = read_source_model(path, role=role)
    provenance = dict(original.metadata.provenance)
    if (start := str(provenance.get("init_from") or "")) and "://" not in start:
        provenance["init_from"] = Path(start).name  # the folder is this machine's
    original = replace(original, metadata=replace(original.metadata, provenance=provenance))
    readme = model_card(repo, original, sha256_of(path) if Path(path).is_file() else "", license, figures)
    with TemporaryDirectory() as folder:
        agreement = convert(original, HUGGING_FACE, out := Path(folder) / "repository")
        (out / "README.md").write_text(readme, encoding="utf-8")
        print("\n".join([*agreement.lines(), *(f"note: {one}" for one in (*original.remarks, *agreement.remarks))]))
        print("\n".join(f"{file.name}  {file.stat().st_size:,} bytes" for file in sorted(out.iterdir())))
        print(f"\n{readme}\nnothing was sent to {repo}" if dry_run else _send(hub, out, repo, private, revision))


def model_card(repo: str, original: SourceModel, digest: str, licence: str, card: Mapping[str, Any] | None) -> str:
    """Writes the README: what the backbone is, and the figures that a card has of a file with this SHA-256."""
    if not re.fullmatch(r"[\w.+-]*", licence):
        raise ValueError(f"--license {licence!r} must be a name of the hub's, such as apache-2.0 or other")
    parameters = f"{sum(tensor.numel() for tensor in original.tensors.values()):,}"
    content = dict[str, Any](repo=repo, license=licence, metadata=original.metadata, parameters=parameters)
    if card is not None:
        known = {one["sha256"]: one["name"] for one in card["checkpoints"] if one["sha256"]}
        if digest not in known:
            held = ", ".join(f"{name} ({one[:12]})" for one, name in known.items())
            raise ValueError(
                f"the card has no figures of {original.path} (SHA-256 {digest[:12]}): its checkpoints are {held}. Next "
                "step: mst evaluate it, or push one of those"
            )
        name = known[digest]
        rows = [one for one in card["rows"] if one["checkpoint"] == name]
        compared = [one for one in card["differences"] if one["primary"] and name in (one["a"], one["b"])]
        content |= dict(rows=rows, differences=compared, name=name, protocol=card["protocol_hash"])
    return render("model_card.md", content)


def _send(hub: Any, folder: Path, repo: str, private: bool, revision: str) -> str:
    """Sends all files in one commit, whose address it returns; makes repository and branch if need be."""
    api, is_private = hub.HfApi(), private
    with explained(f"mst push {repo}", repo):
        try:
            is_private = bool(api.model_info(repo, timeout=SECONDS).private)
        except hub.errors.RepositoryNotFoundError:
            api.create_repo(repo, private=private or None)
    if private and not is_private:
        raise ValueError(f"--private: {repo} is there and public. Next step: another name")
    with explained(f"mst push {repo}", repo):
        if revision:
            api.create_branch(repo, branch=revision, exist_ok=True)
        options = dict(revision=revision or None, commit_message="Backbone and card by mst push")
        return str(api.upload_folder(repo_id=repo, folder_path=folder, **options).commit_url)
