"""The parts of the `kubernetes` library in use: configuration, and the session below its asynchronous client.

`import kubernetes.aio` first runs `kubernetes/__init__.py`, which imports the whole synchronous client with requests,
urllib3 and oauthlib: 8 MB and a tenth of a second per replica, unused. So an empty module stands in for the parent
package while the asynchronous half is imported. Later imports of `kubernetes` get the complete package.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from types import ModuleType

_LIBRARY = "kubernetes"


@contextmanager
def _without_its_init(name: str) -> Iterator[None]:
    if name in sys.modules:
        yield
        return
    spec = find_spec(name)
    stand_in = ModuleType(name)
    stand_in.__path__ = list(spec.submodule_search_locations or ()) if spec is not None else []
    sys.modules[name] = stand_in
    try:
        yield
    finally:
        del sys.modules[name]


with _without_its_init(_LIBRARY):
    from kubernetes.aio.client.configuration import Configuration
    from kubernetes.aio.client.rest import RESTClientObject
    from kubernetes.aio.config import ConfigException, load_incluster_config
    from kubernetes.aio.config.kube_config import FileOrData, KubeConfigLoader, KubeConfigMerger

__all__ = [
    "ConfigException",
    "Configuration",
    "FileOrData",
    "KubeConfigLoader",
    "KubeConfigMerger",
    "RESTClientObject",
    "load_incluster_config",
]
