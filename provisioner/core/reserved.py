"""Names that file systems, file servers and their other clients reserve in a share."""

from __future__ import annotations

import re

from provisioner.core.folding import fold

# By origin, in lower case: some servers are case-insensitive.
_NAMES = frozenset(
    (
        # ext2 to ext4, btrfs with snapper, Lustre, GlusterFS, CephFS
        "lost+found", ".snapshots", ".lustre", ".glusterfs", ".trashcan", ".snap",
        # ZFS (TrueNAS), NetApp, PowerScale (Isilon), Celerra, VNX and Unity, Hitachi, VAST
        ".zfs", ".snapshot", "~snapshot", ".~snapshot", ".snapdir", ".ifsvar", ".isi-compliance", ".ckpt", ".etc",
        ".vast_trash",
        # Synology
        "@eadir", "#recycle", "#snapshot", "@tmp", "@sharebin", "@sharesnap",
        # QNAP
        "@recycle", "@recently-snapshot", ".@__thumb", ".@upload_cache", ".@__qini", ".@analytic", ".streams", ".qsync",
        # Samba, Unraid, Netatalk
        ".recycle", ".recycle.bin", ".deleted", ".appledb", ".appledesktop", ".appledouble",
        # macOS
        ".ds_store", ".temporaryitems", ".trashes", ".spotlight-v100", ".fseventsd", ".documentrevisions-v100",
        ".apdisk", "network trash folder", "temporary items", "thevolumesettingsfolder", "thefindbycontentfolder",
        # Windows
        "$recycle.bin", "$extend", "recycler", "recycled", "system volume information", "dfsrprivate",
        # Linux desktops
        ".trash",
    )
)  # fmt: skip

# Families of names: quota files, a user's trash, deleted files that are still open (NFS and FUSE clients), macOS.
_FAMILIES = re.compile(r"a?quota\.(user|group|project).*|\.trash-.+|\.nfs[0-9a-f]{8,}|\.fuse_hidden.*|\.com\.apple\..*")

_FIRST_OF_A_NAS = ("@", "#", "~")
_FIRST_OF_HIDDEN = "."


def is_servers(name: str) -> bool:
    """Return True for a name that a server or one of its clients reserves in every directory."""
    folded = fold(name)
    return folded in _NAMES or _FAMILIES.fullmatch(folded) is not None


def is_servers_at_root(name: str) -> bool:
    """Return True for a name that is reserved at an export's root: NAS systems add names to these families."""
    return is_servers(name) or name.startswith(_FIRST_OF_A_NAS)


def is_hidden_at_root(name: str) -> bool:
    """Return True for a directory at an export's root that is not reported as an orphan although it is unknown."""
    return is_servers_at_root(name) or name.startswith(_FIRST_OF_HIDDEN)
