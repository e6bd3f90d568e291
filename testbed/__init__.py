"""Real servers on loopback for anyone who writes a controller in Python: a Kubernetes control plane and an NFS server.

    with ControlPlane() as cluster:          # etcd, kube-apiserver and kube-controller-manager, ready in some seconds
        cluster.api.get("/api/v1/namespaces")
        cluster.api_server.kill()            # what does your controller do now?

    with Ganesha([Export(Path("/srv/nfs"), "/nfs")]) as server:
        server.pause()                       # and now?

Nothing here needs Docker, a cluster or more than the standard library; what it starts ends with it.
"""

from __future__ import annotations

from testbed.api import Api, ApiError
from testbed.cluster import ControlPlane, TokenUser
from testbed.ganesha import Export, Ganesha
from testbed.processes import Server, ServerFailed

__all__ = ["Api", "ApiError", "ControlPlane", "Export", "Ganesha", "Server", "ServerFailed", "TokenUser"]
