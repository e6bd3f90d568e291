"""The NFS client: `protocol` converts values to bytes and back, `client` implements the `Tree` port over it."""
