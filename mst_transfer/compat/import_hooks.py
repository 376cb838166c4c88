"""Acts when another package is imported, so that ``import mst_transfer`` itself stays light.

Two services, both through ordinary finders on ``sys.meta_path``:

- ``provide(name, substitute)``: module ``name`` is made by ``substitute.make_module`` if nobody else has it;
- ``on_import(name, patch)``: ``patch.install()`` runs right after module ``name`` was executed.
"""

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType


class SubstituteFinder(MetaPathFinder, Loader):
    """Finds ``name`` after every other finder has failed: a real module of that name always wins.

    Args:
        name: Full name of the module to provide, e.g. ``mmcv._ext``.
        substitute: Name of the module whose ``make_module(spec)`` makes it.
    """

    def __init__(self, name: str, substitute: str) -> None:
        self.name = name
        self.substitute = substitute

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self.name:
            return None
        return ModuleSpec(fullname, self, origin=self.substitute)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module: ModuleType = importlib.import_module(self.substitute).make_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Nothing to execute: ``create_module`` made the module whole."""


class PatchingLoader(Loader):
    """Executes a module with its own loader, then calls ``install()`` of the patch."""

    def __init__(self, loader: Loader, patch: str) -> None:
        self.loader = loader
        self.patch = patch

    def __getattr__(self, name: str) -> object:
        return getattr(self.loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self.loader.exec_module(module)
        importlib.import_module(self.patch).install()


class PatchFinder(MetaPathFinder):
    """Wraps the loader of module ``name`` in a ``PatchingLoader``."""

    def __init__(self, name: str, patch: str) -> None:
        self.name = name
        self.patch = patch
        self._searching = False

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self.name or self._searching:
            return None
        self._searching = True
        try:
            spec = find_spec(fullname)
        finally:
            self._searching = False
        if spec is not None and spec.loader is not None:
            spec.loader = PatchingLoader(spec.loader, self.patch)
        return spec


def _installed(kind: type, name: str, patch: str | None = None) -> bool:
    finders = (finder for finder in sys.meta_path if isinstance(finder, kind))
    return any(getattr(one, "name", None) == name and getattr(one, "patch", None) == patch for one in finders)


def provide(name: str, substitute: str) -> None:
    """Provides module ``name`` through ``substitute.make_module`` when no real one exists. Idempotent."""
    if not _installed(SubstituteFinder, name):
        sys.meta_path.append(SubstituteFinder(name, substitute))


def on_import(name: str, patch: str) -> None:
    """Calls ``patch.install()`` when ``name`` gets imported, or now if it was. ``install`` must be
    idempotent. A module may have several patches.
    """
    if name in sys.modules:
        importlib.import_module(patch).install()
    elif not _installed(PatchFinder, name, patch):
        sys.meta_path.insert(0, PatchFinder(name, patch))
