"""Exports: directory trees, mounted by somebody else or reached by our own NFS client, and the ledger on top."""
