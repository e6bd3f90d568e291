"""Dynamic NFS volumes for Kubernetes: a directory and a PersistentVolume per claim."""

__version__ = "0.1.0"
