"""Volumes that the daemon creates over NFS, mounted by the Linux kernel as a node mounts them."""

from __future__ import annotations

import pytest

from testbed import vm
from testbed.vm import KernelClient
from tests.integration.daemon.direct.conftest import DirectStorage, MakeServer
from tests.support.direct_export import VERSIONS, DirectExport
from tests.support.disk import disk

pytestmark = pytest.mark.timeout(180)

UID, STRANGER = 4711, 4712

SCRIPT = """
set -e
as() { uid=$1; shift; setpriv --reuid $uid --regid $uid --clear-groups "$@"; }
for path in $PATHS; do
  mount -t nfs -o "$OPTIONS" "$HOST:$path" /mnt
  as $OWNER mkdir /mnt/deep
  as $OWNER sh -ec 'echo "written by $(id -u) in $0" > /mnt/deep/file; mv /mnt/deep/file /mnt/file' $path
  if as $STRANGER ls /mnt; then echo "a stranger sees what is not for them"; exit 1; fi
  umount /mnt
  mount -t nfs -o "$OPTIONS" "$HOST:$path" /mnt
  as $OWNER cat /mnt/file
  umount /mnt
done
"""

# Without proto Linux asks the port mapper although both ports are given, and without nolock it needs statd (nfs(5)).
OPTIONS = {"3": ["nolock", "proto=tcp"], "4.1": []}

# mount.nfs refuses `mountport` with NFSv4, so that server has no MOUNT.
SERVED = {"3": VERSIONS, "4.1": (4,)}


@pytest.mark.parametrize("version", [pytest.param("3", marks=pytest.mark.thorough), "4.1"])
def test_volumes_are_mounted_by_linux(direct: DirectStorage, serve: MakeServer, version: str) -> None:
    """Linux mounts a volume with its mountOptions, its owner writes and reads, and the archive has what was written."""
    reason = vm.missing()
    if reason:
        pytest.skip(f"this machine cannot run the kernel's NFS client: {reason}")
    path = f"/kernel-{version}"
    export = DirectExport(serve(path, versions=SERVED[version]), path, version)
    owner = {"mode": "0700", "uid": str(UID), "gid": str(UID)}
    for rule in ("delete", "archive"):
        direct.claim(direct.class_on(export, rule, parameters=owner, options=OPTIONS[version]), rule)
    deleted, archived = direct.bound("delete"), direct.bound("archive")
    paths = [volume["spec"]["nfs"]["path"] for volume in (deleted, archived)]
    text = {path: f"written by {UID} in {path}\n" for path in paths}

    ran = KernelClient().run(
        SCRIPT,
        {
            "OPTIONS": ",".join(archived["spec"]["mountOptions"]),
            "PATHS": " ".join(paths),
            "OWNER": str(UID),
            "STRANGER": str(STRANGER),
        },
    )
    assert ran.status == 0, ran.output
    assert [line for line in text.values() if line not in ran.output] == []
    written = [export.directory(volume) / "file" for volume in (deleted, archived)]
    assert [(file.read_text(), file.stat().st_uid, file.stat().st_gid) for file in written] == [
        (text[path], UID, UID) for path in paths
    ]

    for rule, volume in (("delete", deleted), ("archive", archived)):
        direct.delete_claim(rule)
        direct.volume_gone(volume["metadata"]["name"])
    direct.eventually(lambda: not disk(export.root).trash, "the trash is purged")
    seen = disk(export.root)
    (archive,) = seen.archives
    assert not seen.directories
    assert (export.root / archive / "file").read_text() == text[paths[1]]
