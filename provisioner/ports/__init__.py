"""Ports: the interfaces between the product and the outside world.

Each port is a Protocol with its values and errors. Every driver of a port passes the contract suite of that port in
tests/contract.
"""
