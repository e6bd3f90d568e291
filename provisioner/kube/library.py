"""The parts of the `kubernetes` library in use: its loaders, which find a server and credentials.

The import of a loader also imports all clients of the library, with aiohttp, requests, pydantic and oauthlib: 20 MB and
a quarter of a second per replica, unused. So empty modules stand in for these packages during the import, with the
names that the loaders ask for. Later imports of `kubernetes` get the complete package.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

_LIBRARY = "kubernetes"
_CONFIG = f"{_LIBRARY}.aio.config"


class Configuration:
    """What a loader fills in: the server, and how to prove to it who the client is.

    The attributes have the names of the library's class of the same name.
    """

    def __init__(self) -> None:
        self.host = ""
        self.api_key: dict[str, str] = {}
        self.refresh_api_key_hook: Callable[[Configuration], None] | None = None
        self.ssl_ca_cert: str | None = None
        self.cert_file: str | None = None
        self.key_file: str | None = None
        self.verify_ssl = True
        self.tls_server_name: str | None = None
        self.proxy: str | None = None

    def authorization(self) -> str:
        """Return the header with the credentials; in a pod, the library rereads the token file once per minute.

        Raises ConfigException and OSError.
        """
        if self.refresh_api_key_hook is not None:
            self.refresh_api_key_hook(self)
        # A token file can end in a newline, which is illegal in a header.
        return self.api_key.get("BearerToken", "").strip()


class _OpenIDRequestor:
    """The library's class of that name, which imports aiohttp when it is used."""

    def __init__(self, *arguments: Any) -> None:
        self._arguments = arguments

    async def refresh_token(self, token: str) -> Any:
        import aiohttp

        with _stand_ins(_loaded):
            del sys.modules[f"{_CONFIG}.openid"]
            from kubernetes.aio.config.openid import OpenIDRequestor
        try:
            return await OpenIDRequestor(*self._arguments).refresh_token(token)
        except aiohttp.ClientError as exc:
            raise ConfigException(f"oidc: {exc or type(exc).__name__}") from exc


@contextmanager
def _stand_ins(modules: dict[str, ModuleType]) -> Iterator[None]:
    """Use these modules in place of all that belong to the library; collect what is imported in the dict."""
    complete = _remove()
    sys.modules.update(modules)
    try:
        yield
    finally:
        modules.update(_remove())
        sys.modules.update(complete)


def _remove() -> dict[str, ModuleType]:
    names = [name for name in sys.modules if name.partition(".")[0] == _LIBRARY]
    return {name: sys.modules.pop(name) for name in names}


def _stand_in(name: str, directory: Path | None = None, **attributes: object) -> tuple[str, ModuleType]:
    module = ModuleType(name)
    if directory is not None:
        module.__path__ = [str(directory)]
    vars(module).update(attributes)
    return name, module


_found = find_spec(_LIBRARY)
_directory = Path((_found and _found.origin) or _LIBRARY).parent
_loaded = dict(
    [
        _stand_in(_LIBRARY, _directory),
        _stand_in(f"{_LIBRARY}.aio", _directory / "aio"),
        _stand_in(f"{_LIBRARY}.aio.client", Configuration=Configuration, ApiClient=None),
        _stand_in(f"{_CONFIG}.openid", OpenIDRequestor=_OpenIDRequestor),
    ]
)
with _stand_ins(_loaded):
    from kubernetes.aio.config import ConfigException, load_incluster_config
    from kubernetes.aio.config.kube_config import FileOrData, KubeConfigLoader, KubeConfigMerger

__all__ = [
    "ConfigException",
    "Configuration",
    "FileOrData",
    "KubeConfigLoader",
    "KubeConfigMerger",
    "load_incluster_config",
]
