"""The API server: driver of the port `Cluster`, on kubernetes.aio.config, httptools and msgspec. See cluster.py."""
