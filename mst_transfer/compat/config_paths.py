"""Configs of installed packages: ``_base_ = 'mst_transfer::det_configs/mst_maskrcnn_coco.py'``.

mmengine locates ``package::path`` with ``pkg_resources``, which setuptools 82 removed and which does not
see editable installs. Here the same question is answered by ``importlib``, and this package's own configs
are added.
"""

import difflib
import importlib.util
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from types import ModuleType

PACKAGE = "mst_transfer"
CONFIG_FOLDERS = ("det_configs", "seg_configs", "pretrain/configs")
# The libraries whose types a folder's configs name without a scope.
FOLDER_SCOPES = {"det_configs": "mmdet", "seg_configs": "mmseg", "pretrain": "pretrain"}


def config_root() -> Path:
    """The folder that holds det_configs/, seg_configs/ and pretrain/configs/.

    A wheel carries them inside the package; a checkout, also one installed with ``pip install -e``, has
    them beside it.
    """
    package = Path(__file__).resolve().parent.parent
    shipped = package / ".mim" / "configs"
    return shipped if shipped.is_dir() else package.parent


def available_configs() -> list[str]:
    """Names of all shipped configs, e.g. ``det_configs/mst_maskrcnn_coco.py``, without those in ``_base_``
    folders.
    """
    root = config_root()
    paths = (path.relative_to(root) for folder in CONFIG_FOLDERS for path in (root / folder).rglob("*.py"))
    return sorted(path.as_posix() for path in paths if "_base_" not in path.parts and path.name != "__init__.py")


def shipped_config(name: str) -> Path:
    """Path of a shipped config.

    Args:
        name: Its name below ``config_root()``, e.g. ``det_configs/mst_maskrcnn_coco.py``.

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
    """Path of a config given on the command line.

    Args:
        name: A path, or ``mst_transfer::NAME``, or the NAME of a shipped config (used where no such file
            exists here).

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


def _module_name(package: str) -> str:
    """Module name of an installed distribution: mmsegmentation → mmseg; the name itself if it is a module."""
    if importlib.util.find_spec(package) is not None:
        return package
    try:
        top_level = distribution(package).read_text("top_level.txt") or ""
    except PackageNotFoundError:
        return package
    return top_level.split("\n")[0].strip() or package


def is_installed(package: str) -> bool:
    """Whether ``package`` (a module or a distribution) can be imported. Replaces mmengine's function of
    this name.
    """
    return importlib.util.find_spec(_module_name(package)) is not None


def get_installed_path(package: str) -> str:
    """Folder of ``package`` (a module or a distribution). Replaces mmengine's function of this name.

    Raises:
        ModuleNotFoundError: It is not installed.
        RuntimeError: It is a namespace package.
    """
    spec = importlib.util.find_spec(_module_name(package))
    if spec is None:
        raise ModuleNotFoundError(f"package '{package}' is not installed. Next step: pip install {package}")
    if spec.origin is None:
        raise RuntimeError(f"'{package}' is a namespace package: it has no single folder to look for configs in")
    return str(Path(spec.origin).parent)


def _config_of_wheel(package: str, name: str) -> Path | None:
    """A config that lies in the package where wheels have theirs. mmengine reads all model-zoo files to find it."""
    if not is_installed(package):
        return None
    path = Path(get_installed_path(package)) / ".mim" / "configs" / name
    return path if path.is_file() else None


def _use(module: ModuleType | None, **functions: object) -> None:
    for name, function in functions.items():
        if module is not None and hasattr(module, name):
            setattr(module, name, function)


def install() -> None:
    """Makes ``mmengine.config`` use the functions of this module. Idempotent."""
    import mmengine.config.config as config
    import mmengine.config.utils as config_utils
    import mmengine.utils as utils
    import mmengine.utils.package_utils as package_utils

    for module in (config, utils, package_utils):
        _use(module, is_installed=is_installed, get_installed_path=get_installed_path)
    config_utils.MODULE2PACKAGE.setdefault(PACKAGE, PACKAGE)
    original = config.Config._get_cfg_path
    if getattr(original, "_of_mst_transfer", False):
        return

    def get_cfg_path(cfg_path: str, filename: str) -> tuple[str, str | None]:
        package, separator, name = cfg_path.partition("::")
        if not separator:
            return original(cfg_path, filename)
        if package != PACKAGE:
            path = _config_of_wheel(package, name)
            return (str(path), package) if path else original(cfg_path, filename)
        return str(shipped_config(name)), FOLDER_SCOPES[name.split("/")[0]]

    get_cfg_path._of_mst_transfer = True  # type: ignore[attr-defined]
    config.Config._get_cfg_path = staticmethod(get_cfg_path)
