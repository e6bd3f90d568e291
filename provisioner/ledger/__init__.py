"""The ledger: which directory of an export belongs to which volume.

It works over any `Tree`, and knows neither NFS nor Kubernetes. README.md has the protocol.
"""
