"""A server whose volumes have enforced sizes: knfsd with XFS in a virtual machine, and the quota agent beside it."""

from __future__ import annotations

from testbed.vm import KernelServer
from tests.support.product import product

PATH = "/srv/sized"
_AGENT = f"""
mkdir -p {PATH}
PYTHONPATH=/product /usr/bin/python3 -m provisioner quota-agent --root {PATH} --log-format json
"""
_OPTIONS = {"3": ["nfsvers=3", "nolock", "proto=tcp"], "4.2": ["nfsvers=4.2"]}
VERSIONS = tuple(_OPTIONS)


def sized_server() -> KernelServer:
    """Return the server, not yet started; it exports PATH on this machine's loopback."""
    return KernelServer({PATH: "rw,async,no_root_squash,insecure"}, beside=_AGENT, files=product())


def class_fields(server: KernelServer, host: str, version: str) -> tuple[dict[str, str], list[str]]:
    """Return parameters and mountOptions of a class whose sizes are enforced; `host` is the server's address."""
    parameters = {"server": host, "share": PATH, "quota": "required", "mode": "0777", "onDelete": "delete"}
    options = [*_OPTIONS[version], f"port={server.port}"]
    return parameters, [*options, f"mountport={server.mount_port}"] if version == "3" else options
