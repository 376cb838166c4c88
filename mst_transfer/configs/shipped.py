"""Finds the configs that are shipped, in a checkout and in an installed wheel."""

import difflib
from pathlib import Path

PACKAGE = "mst_transfer"
CONFIG_FOLDERS = ("det_configs", "seg_configs", "pretrain/configs")
# The libraries whose types a folder's configs name without a scope.
FOLDER_SCOPES = {"det_configs": "mmdet", "seg_configs": "mmseg", "pretrain": "pretrain"}


def config_root() -> Path:
    """The folder that holds det_configs/, seg_configs/ and pretrain/configs/.

    A wheel carries them inside the package; a checkout, also one installed with ``pip install -e``, beside it.
    """
    package = Path(__file__).resolve().parent.parent
    shipped = package / ".mim" / "configs"
    return shipped if shipped.is_dir() else package.parent


def available_configs() -> list[str]:
    """Names of all shipped configs, e.g. ``det_configs/mst_maskrcnn_coco.py``, without those in ``_base_`` folders."""
    root = config_root()
    paths = (path.relative_to(root) for folder in CONFIG_FOLDERS for path in (root / folder).rglob("*.py"))
    return sorted(path.as_posix() for path in paths if "_base_" not in path.parts and path.name != "__init__.py")


def shipped_config(name: str) -> Path:
    """Path of a shipped config, by its name below ``config_root()``, e.g. ``det_configs/mst_maskrcnn_coco.py``.

    Raises:
        FileNotFoundError: There is none; the message names the nearest ones.
    """
    root = config_root()
    path = root / name
    if path.is_file() and path.resolve().is_relative_to(root) and name.split("/")[0] in FOLDER_SCOPES:
        return path
    raise FileNotFoundError(f"No '{name}' among the configs of {PACKAGE} in {root}. {_nearest(name, root)}")


def _nearest(name: str, root: Path) -> str:
    """The shipped configs whose file names are most like a name; where to find them all if none is."""
    known = available_configs()
    stems = difflib.get_close_matches(Path(name).stem, {Path(path).stem: None for path in known}, n=3, cutoff=0.7)
    near = [path for stem in stems for path in known if Path(path).stem == stem][:3]
    if near:
        return f"Nearest: {', '.join(near)}"
    return f"None is like it; they lie in {', '.join(f'{root / folder}' for folder in CONFIG_FOLDERS)}"


def resolve_config(name: str) -> Path:
    """Path of a config given as a path, ``mst_transfer::NAME``, or NAME of a shipped one where there is no such file.

    Raises:
        FileNotFoundError: Neither a file nor a shipped config.
    """
    if name.startswith(f"{PACKAGE}::"):
        return shipped_config(name.partition("::")[2])
    path = Path(name)
    if path.is_file():
        return path
    try:
        return shipped_config(path.as_posix())
    except FileNotFoundError as error:
        raise FileNotFoundError(f"config file {path.absolute()} does not exist. {error}") from None
