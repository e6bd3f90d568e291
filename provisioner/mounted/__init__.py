"""The `Tree` of a directory that is mounted already, on a thread pool that tolerates hung mounts."""
