"""envtest for Python: a Kubernetes control plane and an NFS server for tests.

    with ControlPlane() as cluster:          # etcd, kube-apiserver and kube-controller-manager, ready in seconds
        cluster.api.get("/api/v1/namespaces")
        cluster.api_server.kill()            # what does your controller do?

    with Ganesha([Export(Path("/srv/nfs"), "/nfs")]) as server:
        server.pause()                       # connections open, and no call is answered

The testbed needs no Docker, no cluster and only the standard library. Its servers stop with the process.
"""

from __future__ import annotations

from testbed.api import Api, ApiError
from testbed.cluster import ControlPlane, TokenUser
from testbed.ganesha import Export, Ganesha
from testbed.processes import Server, ServerFailed

__all__ = ["Api", "ApiError", "ControlPlane", "Export", "Ganesha", "Server", "ServerFailed", "TokenUser"]
