"""The modules of the `kubernetes` library in use: the loaders of credentials, and the session of its async client.

The library's packages import everything they have: both clients, pydantic, urllib3, the machinery for the classes of all
resources. That is 25 MB and a quarter of a second per replica, unused. So `_module` imports single modules, with empty
packages around them. Other code that imports `kubernetes` gets the complete library.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import LazyLoader, find_spec, module_from_spec
from pathlib import Path
from types import ModuleType
from typing import Any

_LIBRARY = "kubernetes"
_PACKAGES = ("aio", "aio.client", "aio.config", "aio.utils")
_ours: dict[str, ModuleType] = {}
"""The library's modules as this process uses them, by name."""


def _module(name: str) -> Any:
    """Import one module of the library without the packages around it; `name` is relative to `kubernetes.aio`."""
    others = _taken()
    sys.modules.update(_ours or _empty_packages())
    try:
        return import_module(f"{_LIBRARY}.aio.{name}")
    finally:
        _ours.update(_taken())
        sys.modules.update(others)


def _taken() -> dict[str, ModuleType]:
    """Remove the library's modules from those that Python has imported, and return them."""
    names = [name for name in sys.modules if name.partition(".")[0] == _LIBRARY]
    return {name: sys.modules.pop(name) for name in names}


def _empty_packages() -> dict[str, ModuleType]:
    """Return the library's packages, empty; `client` has placeholders for two classes that loaders import."""
    root = find_spec(_LIBRARY)
    paths = list(root.submodule_search_locations or ()) if root is not None else []
    packages = {_LIBRARY: _package(_LIBRARY, paths)}
    for name in _PACKAGES:
        below = name.replace(".", "/")
        packages[f"{_LIBRARY}.{name}"] = _package(f"{_LIBRARY}.{name}", [str(Path(path, below)) for path in paths])
    client: Any = packages[f"{_LIBRARY}.aio.client"]
    client.ApiClient = client.Configuration = object
    return packages


def _package(name: str, paths: list[str]) -> ModuleType:
    package = ModuleType(name)
    package.__path__ = paths
    return package


def _import_when_used(name: str) -> None:
    """Let a later `import` of a module bind its name only; the first access to an attribute imports it."""
    spec = find_spec(name) if name not in sys.modules else None
    if spec is None or spec.loader is None:
        return
    spec.loader = LazyLoader(spec.loader)
    module = sys.modules[name] = module_from_spec(spec)
    spec.loader.exec_module(module)


def kube_config() -> Any:
    """Return the module that reads kubeconfigs. A pod does not need it, nor the parser of YAML that it imports."""
    _import_when_used("aiohttp")  # only for kubeconfigs with OpenID Connect
    return _module("config.kube_config")


ConfigException: type[Exception] = _module("config.config_exception").ConfigException
load_incluster_config: Callable[..., None] = _module("config.incluster_config").load_incluster_config
RESTClientObject: Any = _module("client.rest").RESTClientObject
