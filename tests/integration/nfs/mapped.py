"""Script of test_unprivileged, in namespaces with rpcbind: Ganesha with NFSv3 only, trees without port or version."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path

from provisioner.core.locations import location
from provisioner.nfs.client.pool import ConnectionPool
from provisioner.nfs.client.tree import DirectTree
from provisioner.nfs.protocol.rpc import Credentials
from provisioner.ports.tree import ExportError, Ownership

CONFIGURATION = """
NFS_CORE_PARAM {{ Bind_addr = 127.0.0.1; NFS_Port = {nfs}; MNT_Port = {mount}; Protocols = 3;
  mount_path_pseudo = true; Enable_NLM = false; Enable_RQUOTA = false; Enable_UDP = false; }}
NFSV4 {{ Graceless = true; RecoveryBackend = fs; RecoveryRoot = "{directory}"; }}
NFS_KRB5 {{ Active_krb5 = false; }}
EXPORT {{ Export_Id = 1; Path = "{directory}/export"; Pseudo = "/x"; Access_Type = RW; Squash = No_Root_Squash;
  SecType = sys; Protocols = 3; Transports = TCP; FSAL {{ Name = VFS; }} }}
"""
READY_S = 30.0
NFS_PORT, MOUNT_PORT = 12049, 12050


async def use() -> None:
    """Create a directory once the server runs, then find it again in the best version."""
    pool = ConnectionPool(Credentials(), timeout_s=5)
    tree = DirectTree(location("127.0.0.1", "/x"), pool, version="3")
    deadline = time.monotonic() + READY_S
    while True:
        try:
            await tree.make_directory(("made",), Ownership())
        except ExportError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.2)
        else:
            break
    print(*(entry.name for entry in await tree.list(())))
    best = DirectTree(location("127.0.0.1", "/x"), pool, port=NFS_PORT, mount_port=MOUNT_PORT)
    print(*(entry.name for entry in await best.list(())))
    await tree.close()
    await best.close()


def main(directory: Path) -> None:
    """Start the server and use it."""
    (directory / "export").mkdir()
    (directory / "conf").write_text(CONFIGURATION.format(directory=directory, nfs=NFS_PORT, mount=MOUNT_PORT))
    files: list[str | Path] = ["-f", directory / "conf", "-L", directory / "log", "-p", directory / "pid"]
    with subprocess.Popen(["ganesha.nfsd", "-F", *files]) as server:
        try:
            asyncio.run(use())
        finally:
            server.kill()


main(Path(sys.argv[1]))
