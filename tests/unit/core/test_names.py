"""core.names."""

from __future__ import annotations

from provisioner.core import names


def test_volume_name_and_back() -> None:
    """A claim's volume has a fixed name, from which the claim's uid can be read."""
    assert names.volume_name("0b5f") == "pvc-0b5f"
    assert names.claim_uid("pvc-0b5f") == "0b5f"


def test_foreign_name() -> None:
    """A volume name of another form has no claim uid."""
    assert names.claim_uid("data-0b5f") is None
