"""Where the API server is and who we are to it: a kubeconfig, several as KUBECONFIG lists them, or a pod's own account.

The library reads the files. It goes on without credentials where it finds none. That is an error here: the API server
would take such a client for `system:anonymous`, and refuse everything for a reason that no message names.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from datetime import datetime

import aiohttp
from yaml import YAMLError

from provisioner.core.errors import InvalidSettings
from provisioner.kube import errors, plugins
from provisioner.kube.library import (
    ConfigException,
    Configuration,
    FileOrData,
    KubeConfigLoader,
    KubeConfigMerger,
    load_incluster_config,
)

# The library's loader, which has no annotations of its own.
_load_in_pod: Callable[..., None] = load_incluster_config
_LIMIT_S = plugins.LIMIT_S + 10.0
"""How long all of it may take: an identity provider is asked by network."""


async def load(configuration: Configuration, kubeconfig: str | None) -> datetime | None:
    """Fill in the server's address, its CA and our credentials; returns when they expire, where that is known.

    Raises InvalidSettings with one line that says what to change.
    """
    if kubeconfig is None:
        try:
            _load_in_pod(client_configuration=configuration)
        except (ConfigException, OSError) as exc:
            raise InvalidSettings(_not_in_a_pod(errors.reason(exc).rstrip("."))) from exc
        return None
    if not _exists(kubeconfig):
        raise InvalidSettings(f"the kubeconfig {kubeconfig} does not exist; pass another one with --kubeconfig PATH")
    try:
        async with asyncio.timeout(_LIMIT_S):
            loader = _Loader(config_dict=KubeConfigMerger(kubeconfig).config)
            await loader.load_and_set(configuration)
    except (ConfigException, OSError, ValueError, YAMLError, aiohttp.ClientError) as exc:
        reason = errors.reason(exc)
        raise InvalidSettings(f"cannot use the kubeconfig {kubeconfig}: {reason}; pass another one") from exc
    except (TypeError, AttributeError, KeyError) as exc:
        # The library looks into the file without checking its shape first.
        raise InvalidSettings(
            f"{kubeconfig} is not a kubeconfig with a cluster, a user and a current context; pass another one"
        ) from exc
    _check(configuration, kubeconfig)
    return loader.expire


def _check(configuration: Configuration, kubeconfig: str) -> None:
    """Raises InvalidSettings where the library found no server or no credentials."""
    host = str(configuration.host)
    if not host.startswith(("http://", "https://")):
        raise InvalidSettings(f"the cluster in the kubeconfig {kubeconfig} has no server of the form https://HOST:PORT")
    if configuration.cert_file and not configuration.key_file:
        raise InvalidSettings(f"the user in the kubeconfig {kubeconfig} has a client-certificate and no client-key")
    if host.startswith("https://") and not (configuration.cert_file or configuration.api_key.get("BearerToken")):
        raise InvalidSettings(
            f"the kubeconfig {kubeconfig} has no credentials for its current context: give its user a token, a client"
            " certificate or a credential plugin"
        )


def _not_in_a_pod(reason: str) -> str:
    """What to change where neither a kubeconfig nor a pod's ServiceAccount is there."""
    if "KUBERNETES_SERVICE_HOST" not in os.environ:
        return "not running in a pod, and no kubeconfig: pass --kubeconfig or set KUBECONFIG"
    return (
        f"cannot use the ServiceAccount of this pod: {reason};"
        " set automountServiceAccountToken: true, or pass --kubeconfig"
    )


def _exists(kubeconfig: str) -> bool:
    """Whether there is any of the files, listed as KUBECONFIG lists them; the library only logs that there is none."""
    return any(os.path.exists(os.path.expanduser(path)) for path in kubeconfig.split(os.pathsep) if path)


class _Loader(KubeConfigLoader):  # type: ignore[misc]  # it has no annotations
    """The library's, but for plugins, users that are not there, and what Kubernetes itself has given up."""

    def __init__(self, config_dict: object) -> None:
        self.expire: datetime | None = None
        super().__init__(config_dict=config_dict, config_base_path=None)
        user = self._current_context["context"].safe_get("user")
        if user and self._user is None:
            raise ConfigException(f"its current context names the user {user}, which it does not have")

    async def load_from_exec_plugin(self) -> bool:
        """Have the plugin's token or certificate. Raises InvalidSettings."""
        printed = await plugins.credentials(self._user["exec"].value, base=self._get_base_path(self._user.path))
        self.expire = printed.expire
        if printed.token:
            self.token = f"Bearer {printed.token}"
        if printed.certificate:
            self.cert_file, self.key_file = _file(printed.certificate), _file(printed.key)
        return True

    async def load_gcp_token(self) -> None:
        """Kubernetes 1.26 removed this provider. Raises InvalidSettings."""
        raise InvalidSettings(
            "the kubeconfig's auth-provider gcp is no longer part of Kubernetes: make another one with"
            " gke-gcloud-auth-plugin, or with a token"
        )


def _file(pem: str) -> str:
    """A file of our own that holds it, which the library removes at the end."""
    path: str = FileOrData({"pem": pem}, None, data_key_name="pem", base64_file_content=False).as_file()
    return path
