"""Address and credentials for the API server: one kubeconfig, several as KUBECONFIG lists them, or a ServiceAccount.

The library reads the files, and continues without credentials if it finds none. Here that is an error: the API server
would treat such a client as `system:anonymous` and refuse everything, for a reason that no message names.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

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

# The library has no type annotations.
_load_in_pod: Callable[..., None] = load_incluster_config
_LIMIT_S = plugins.LIMIT_S + 10.0
"""Time limit for loading: an identity provider can be asked over the network."""


async def load(configuration: Configuration, kubeconfig: str | None, context: str | None = None) -> datetime | None:
    """Fill in the server's address, its CA and the credentials; return when these expire, if that is known.

    `context` is a context of the kubeconfig; without it, the current one counts. Raises InvalidSettings with one line
    that says what to change.
    """
    if kubeconfig is None:
        if context is not None:
            raise InvalidSettings(f"--context {context} needs a kubeconfig: pass --kubeconfig or set KUBECONFIG")
        try:
            _load_in_pod(client_configuration=configuration)
        except (ConfigException, OSError) as exc:
            raise InvalidSettings(_not_in_a_pod(errors.reason(exc).rstrip("."))) from exc
        return None
    if not _exists(kubeconfig):
        raise InvalidSettings(f"the kubeconfig {kubeconfig} does not exist; pass another one with --kubeconfig PATH")
    try:
        async with asyncio.timeout(_LIMIT_S):
            loader = _Loader(KubeConfigMerger(kubeconfig).config, context)
            await loader.load_and_set(configuration)
    except (ConfigException, OSError, ValueError, YAMLError) as exc:
        reason = errors.reason(exc)
        raise InvalidSettings(f"cannot use the kubeconfig {kubeconfig}: {reason}; pass another one") from exc
    except (TypeError, AttributeError, KeyError) as exc:
        # The library looks into the file without checking its shape first.
        raise InvalidSettings(
            f"{kubeconfig} is not a kubeconfig with a cluster, a user and a current context; pass another one"
        ) from exc
    _check(configuration, kubeconfig)
    return loader.expire


@dataclass(frozen=True, slots=True)
class Tls:
    """The TLS context for the server, and the client certificate with its key in it: PEM, empty without."""

    context: ssl.SSLContext
    certificate: bytes


def tls(configuration: Configuration) -> Tls:
    """Read the certificates. Raises OSError and ValueError for unusable ones."""
    files = [path for path in (configuration.cert_file, configuration.key_file) if path]
    certificate = b"".join(Path(path).read_bytes() for path in files)
    context = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
    # The strict mode of X.509, Python's default since 3.13, refuses cluster certificates that Go and kubectl accept.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if configuration.cert_file:
        context.load_cert_chain(configuration.cert_file, configuration.key_file)
    if not configuration.verify_ssl:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return Tls(context, certificate)


def _check(configuration: Configuration, kubeconfig: str) -> None:
    """Raise InvalidSettings if the library found no server or no credentials."""
    host = configuration.host
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
    """Return what to change if there is neither a kubeconfig nor a pod's ServiceAccount."""
    if "KUBERNETES_SERVICE_HOST" not in os.environ:
        return "not running in a pod, and no kubeconfig: pass --kubeconfig or set KUBECONFIG"
    return (
        f"cannot use the ServiceAccount of this pod: {reason};"
        " set automountServiceAccountToken: true, or pass --kubeconfig"
    )


def _exists(kubeconfig: str) -> bool:
    """Return True if at least one of the listed files exists; the library only logs when none does."""
    return any(os.path.exists(os.path.expanduser(path)) for path in kubeconfig.split(os.pathsep) if path)


class _Loader(KubeConfigLoader):  # type: ignore[misc]  # it has no annotations
    """The library's loader, with its own plugins, and errors for unknown users and removed auth providers."""

    def __init__(self, config_dict: object, context: str | None) -> None:
        self.expire: datetime | None = None
        super().__init__(config_dict=config_dict, config_base_path=None, active_context=context)
        user = self._current_context["context"].safe_get("user")
        if user and self._user is None:
            raise ConfigException(f"its current context names the user {user}, which it does not have")

    async def load_from_exec_plugin(self) -> bool:
        """Load the plugin's token or certificate. Raises InvalidSettings."""
        found = await plugins.credentials(self._user["exec"].value, base=self._get_base_path(self._user.path))
        self.expire = found.expire
        if found.token:
            self.token = f"Bearer {found.token}"
        if found.certificate:
            self.cert_file, self.key_file = _file(found.certificate), _file(found.key)
        return True

    async def load_gcp_token(self) -> None:
        """Raise InvalidSettings: Kubernetes 1.26 removed this provider."""
        raise InvalidSettings(
            "the kubeconfig's auth-provider gcp is no longer part of Kubernetes: create another one with"
            " gke-gcloud-auth-plugin, or with a token"
        )


def _file(pem: str) -> str:
    """Write PEM to a temporary file, which the library removes at exit; return its path."""
    path: str = FileOrData({"pem": pem}, None, data_key_name="pem", base64_file_content=False).as_file()
    return path
