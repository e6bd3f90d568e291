"""core.tenancy."""

from __future__ import annotations

from dataclasses import replace

import pytest

from provisioner.core import tenancy
from provisioner.core.objects import Metadata, Namespace
from provisioner.core.tenancy import ANY, UNKNOWN, Tenant
from tests.support import samples

RECORDED = samples.record(namespace_uid="ns-1")
OLDER = samples.record()
"""A record of an older version."""


def test_a_namespace_owns_what_its_claims_left() -> None:
    """The uid decides, whatever the times say."""
    assert samples.TENANT.owns(RECORDED)
    assert not samples.LATER_TENANT.owns(RECORDED)
    assert not replace(samples.LATER_TENANT, created="2020-01-01T00:00:00Z").owns(RECORDED)


@pytest.mark.parametrize(
    ("created", "owns"),
    [
        ("2025-01-01T00:00:00Z", True),
        ("2026-01-01T00:00:05Z", True),
        ("2026-01-01T00:00:06Z", False),
        ("", False),
        ("yesterday", False),
    ],
)
def test_a_record_without_a_uid(created: str, owns: bool) -> None:
    """A namespace that is younger than the record is another one; clocks can differ by a few seconds."""
    assert Tenant(uid="ns-2", created=created).owns(OLDER) is owns


def test_a_namespace_that_could_not_be_read_owns_nothing() -> None:
    """An unknown namespace owns nothing; recovered data belongs to any namespace of the name."""
    assert Tenant.of(None, accepts_former=False) == UNKNOWN
    assert not UNKNOWN.owns(RECORDED)
    assert not UNKNOWN.owns(OLDER)
    assert UNKNOWN.owns(samples.record(namespace_uid=ANY))
    assert "grant get on namespaces" in tenancy.refusal(OLDER, UNKNOWN)


def test_a_class_may_accept_what_former_namespaces_left() -> None:
    """With formerNamespace: accept, the name alone decides."""
    found = Namespace(Metadata(name="shop", uid="ns-2", creation_timestamp="2026-06-01T00:00:00Z"))
    assert Tenant.of(found, accepts_former=False) == samples.LATER_TENANT
    assert Tenant.of(found, accepts_former=True).owns(RECORDED)


def test_the_refusal_names_the_way() -> None:
    """The event has the command for an admin, with the directory quoted for a shell."""
    text = tenancy.refusal(samples.record("team a/data"), samples.LATER_TENANT)
    assert "earlier namespace shop" in text
    assert "`nfs-provisioner adopt 'team a/data' --claim shop/data --apply`" in text
