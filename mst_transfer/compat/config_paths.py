"""Configs of installed packages: ``_base_ = 'mst_transfer::det_configs/mst_maskrcnn_coco.py'``.

mmengine locates ``package::path`` with ``pkg_resources``, which setuptools 82 removed and which does not
see editable installs. Here the same question is answered by ``importlib``, and this package's own configs
are added.
"""

import importlib.util
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from mst_transfer.configs.shipped import FOLDER_SCOPES, PACKAGE, shipped_config


def _module_name(package: str) -> str:
    """Module name of a distribution: mmsegmentation → mmseg, whoever made it; the name itself if it is a module."""
    from mmengine.config.utils import MODULE2PACKAGE

    if importlib.util.find_spec(package) is not None:
        return package
    try:
        top_level = distribution(package).read_text("top_level.txt") or ""
    except PackageNotFoundError:  # the fork's has another name
        return next((module for module, name in MODULE2PACKAGE.items() if name == package), package)
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


def install() -> None:
    """Makes ``mmengine.config`` use the functions of this module. Idempotent."""
    import mmengine.config.config as config
    import mmengine.config.utils as config_utils
    import mmengine.utils as utils
    import mmengine.utils.package_utils as package_utils

    for module in (config, utils, package_utils):
        vars(module).update(is_installed=is_installed, get_installed_path=get_installed_path)
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
