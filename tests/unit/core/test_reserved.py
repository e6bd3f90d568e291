"""core.reserved: which names servers reserve, and which directories are not reported as orphans."""

from __future__ import annotations

import pytest

from provisioner.core.reserved import is_hidden_at_root, is_servers, is_servers_at_root


@pytest.mark.parametrize(
    ("name", "anywhere", "at_root", "hidden"),
    [
        ("lost+found", True, True, True),
        (".SNAPSHOT", True, True, True),
        ("$Recycle.Bin", True, True, True),
        (".nfs000000000000000000000001", True, True, True),
        ("quota.group", True, True, True),
        ("@docker", False, True, True),
        ("~user", False, True, True),
        ("#new", False, True, True),
        (".volumes", False, False, True),
        ("shop", False, False, False),
        ("quotas", False, False, False),
        ("a@b", False, False, False),
    ],
)
def test_whose_name(name: str, anywhere: bool, at_root: bool, hidden: bool) -> None:
    """Known names are reserved everywhere, families at the root; hidden names are only not reported as orphans."""
    assert (is_servers(name), is_servers_at_root(name), is_hidden_at_root(name)) == (anywhere, at_root, hidden)
