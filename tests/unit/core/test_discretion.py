"""core.discretion, and the events on claims by the rules in core."""

from __future__ import annotations

import dataclasses

import pytest
from msgspec import structs

from provisioner.core import claims, discretion
from provisioner.core.claims import Refuse, Wait
from provisioner.core.discretion import Owner, Words
from provisioner.core.errors import InvalidRecord
from provisioner.core.objects import ClaimRef, Volume
from tests.support import samples
from tests.unit.core.test_claims import view

SHOP = Owner("shop", "c")
OTHERS = [Owner("bank", "c"), Owner("shop", "another"), Owner("", "c"), None]
SECRETS = ("bank", "pv-of-the-bank", "vault")


@pytest.mark.parametrize("owner", OTHERS)
def test_objects_of_other_owners_are_not_named(owner: Owner | None) -> None:
    """Objects of another namespace, of another cluster, or without an owner, are named only in the log."""
    assert discretion.words(SHOP, owner, "all", "little") == Words("all", "little")
    words = discretion.taken(SHOP, "a/b", owner, "volume pv-of-the-bank (vault)")
    assert "volume pv-of-the-bank (vault)" in words.log
    assert "'a/b' overlaps with a volume outside this namespace" in words.event
    assert not any(secret in words.event for secret in SECRETS)


def test_objects_of_the_same_namespace_are_named() -> None:
    """Objects of the claim's own namespace are named in the event; the advice is there in any case."""
    assert discretion.words(SHOP, Owner("shop", "c"), "all", "little") == Words("all", "all")
    words = discretion.taken(SHOP, "a", SHOP, "volume pv1")
    assert words.log == words.event
    assert "directory 'a' overlaps with volume pv1: " in words.event
    for text in (words.event, discretion.taken(SHOP, "a", None, "x").event):
        assert text.endswith("use a pathPattern that is unique per volume, for example by adding ${.PV.name}")


@pytest.mark.parametrize(
    ("asker", "owner", "same"),
    [("1", "1", True), ("1", "2", False), ("", "2", True), ("1", "", True), ("1", "any", True)],
)
def test_a_namespace_that_was_created_again(asker: str, owner: str, same: bool) -> None:
    """Objects of an earlier namespace of the same name are not named, if its uid is known."""
    words = discretion.words(SHOP._replace(uid=asker), SHOP._replace(uid=owner), "all", "little")
    assert (words.event == "all") is same


def test_whose_something_is() -> None:
    """The owner comes from the record, or from the volume's claimRef."""
    assert discretion.owner_by(structs.replace(samples.record("a"), cluster="c")) == SHOP
    assert discretion.owner_of(samples.volume(), "c") == SHOP
    assert discretion.owner_of(samples.volume(claim_uid=None), "c") is None


def test_the_event_about_an_archive_is_always_the_same() -> None:
    """The event is the same whether an archive belongs to another namespace or does not exist."""
    texts = {discretion.no_archive(SHOP, "archived-a", log).event for log in ("it is the bank's", "there is none")}
    (text,) = texts
    assert text.startswith("there is no archive 'archived-a' of namespace shop")


def held_by(namespace: str, **volume: str) -> Volume:
    """A volume of that namespace that has the directory."""
    held = samples.volume(name="pv-of-the-bank", **volume)  # type: ignore[arg-type]
    source = structs.replace(samples.SOURCE, path="/exports/vault")
    reference = ClaimRef(namespace, "data", "77")
    return structs.replace(held, spec=structs.replace(held.spec, claim_ref=reference, nfs=source))


@pytest.mark.parametrize("phase", ["Bound", "Released"])
def test_the_cluster_s_volumes(phase: str) -> None:
    """If a volume of another namespace has the directory, the event has neither its name nor its path."""
    decision = claims.decide(view(holder=held_by("bank", phase=phase)))
    assert isinstance(decision, Refuse | Wait)
    text = decision.message if isinstance(decision, Refuse) else decision.why
    assert "a volume outside this namespace" in text
    assert not any(secret in text for secret in SECRETS)
    assert "pv-of-the-bank" in decision.log_message
    own = claims.decide(view(holder=held_by("shop", phase=phase)))
    assert isinstance(own, Refuse | Wait)
    assert "pv-of-the-bank" in (own.message if isinstance(own, Refuse) else own.why)


def test_a_volume_that_is_for_no_claim() -> None:
    """A volume without a claimRef is not named in the event."""
    held = held_by("shop", phase="Available")
    nobody = structs.replace(held, spec=structs.replace(held.spec, claim_ref=None))
    decision = claims.decide(dataclasses.replace(view(holder=nobody)))
    assert isinstance(decision, Refuse)
    assert "pv-of-the-bank" not in decision.message


def test_other_errors_have_one_text() -> None:
    """Other errors have the same text for the log and for the event."""
    assert InvalidRecord("too long").event_text == "too long"
