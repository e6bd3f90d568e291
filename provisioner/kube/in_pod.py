"""Address and credentials for the API server of the pod that this process runs in: its ServiceAccount."""

from __future__ import annotations

import os

from provisioner.core.errors import InvalidSettings
from provisioner.kube import errors
from provisioner.kube.configuration import Configuration
from provisioner.kube.library import ConfigException, load_incluster_config


def load(configuration: Configuration) -> None:
    """Fill in the server's address, its CA and the credentials, which the library reads again when they change.

    Raises InvalidSettings with one line that says what to change.
    """
    try:
        load_incluster_config(client_configuration=configuration)
    except (ConfigException, OSError) as exc:
        raise InvalidSettings(_not_in_a_pod(errors.reason(exc).rstrip("."))) from exc


def _not_in_a_pod(reason: str) -> str:
    """Return what to change if there is neither a kubeconfig nor a pod's ServiceAccount."""
    if "KUBERNETES_SERVICE_HOST" not in os.environ:
        return "not running in a pod, and no kubeconfig: pass --kubeconfig or set KUBECONFIG"
    return (
        f"cannot use the ServiceAccount of this pod: {reason};"
        " set automountServiceAccountToken: true, or pass --kubeconfig"
    )
