"""Dynamic NFS volumes for Kubernetes: a directory and a PersistentVolume for each claim, nothing lost by accident."""

__version__ = "0.1.0"
