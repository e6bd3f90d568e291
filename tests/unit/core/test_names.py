"""core.names."""

from __future__ import annotations

from provisioner.core import names


def test_volume_name_and_back() -> None:
    """A claim's volume has one name, and the name leads back to the claim."""
    assert names.volume_name("0b5f") == "pvc-0b5f"
    assert names.claim_uid("pvc-0b5f") == "0b5f"


def test_foreign_name() -> None:
    """A volume whose name is not of our making has no claim of ours."""
    assert names.claim_uid("data-0b5f") is None
