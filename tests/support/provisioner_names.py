"""Names of provisioners that the API server accepts in a StorageClass, and names that it refuses."""

from __future__ import annotations

NAMES = [
    "cluster.local/nfs-provisioner", "k8s-sigs.io/nfs-subdir-external-provisioner", "nfs", "NFS", "nfs_client",
    "Example.com/nfs", "Example.COM/Nfs_Client.1", "n" * 63, ".".join(["d" * 63] * 3) + "/" + "n" * 63, "a.b", "a..b",
    "1", "Kubernetes.io/nfs",
]  # fmt: skip
NO_NAMES = [
    "", "a b", "/nfs", "nfs/", "a/b/c", "-a/b", "a/b\n", "a/-b", "nfs-", "_nfs", "a/" + "b" * 64, "n" * 64,
    "d" * 254 + "/nfs", "a..b/c", "a-/b", "a_b/c", "näs", "a:b",
]  # fmt: skip
