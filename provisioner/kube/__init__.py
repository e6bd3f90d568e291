"""The API server: driver of the port `Cluster`, on kubernetes.aio, aiohttp, msgspec. Its door: cluster.open_cluster."""
