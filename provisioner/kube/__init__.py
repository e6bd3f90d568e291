"""The API server: driver of the port `Cluster`, on kubernetes.aio, aiohttp and msgspec. Entry: cluster.open_cluster."""
