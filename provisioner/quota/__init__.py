"""The quota agent: it runs on an NFS server and enforces the sizes that the records of a ledger ask for.

The ledger is its only interface to the provisioner: it reads records of volumes and writes answers (core.quota). It
needs no API server, no network and no credential. `wishes`, `ids` and `rules` decide in values; `book` has the records
in memory, `agent` gathers and acts; `kernel` and `zfs` are the drivers of the `Disk` port.
"""
