"""core.discretion, and the events on claims that core's own rules give."""

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
def test_what_is_not_of_the_namespace_is_not_told(owner: Owner | None) -> None:
    """Another namespace's, the same one's of another cluster, and what is nobody's, stay in the log."""
    assert discretion.words(SHOP, owner, "all", "little") == Words("all", "little")
    words = discretion.taken(SHOP, "a/b", owner, "volume pv-of-the-bank (vault)")
    assert "volume pv-of-the-bank (vault)" in words.log
    assert "'a/b' overlaps with a volume outside this namespace" in words.event
    assert not any(secret in words.event for secret in SECRETS)


def test_what_is_of_the_namespace_is_told() -> None:
    """Whoever asks learns all of what is their own namespace's, and how to go on in any case."""
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
    """What an earlier namespace of the name has is not told, as far as its uid is known."""
    words = discretion.words(SHOP._replace(uid=asker), SHOP._replace(uid=owner), "all", "little")
    assert (words.event == "all") is same


def test_whose_something_is() -> None:
    """By its record, or by the claim that a volume is for."""
    assert discretion.owner_by(structs.replace(samples.record("a"), cluster="c")) == SHOP
    assert discretion.owner_of(samples.volume(), "c") == SHOP
    assert discretion.owner_of(samples.volume(claim_uid=None), "c") is None


def test_an_archive_is_told_in_one_way_whatever_is_there() -> None:
    """Whether there is an archive of a name, whose, or a directory alone, cannot be asked for."""
    texts = {discretion.no_archive(SHOP, "archived-a", whole).event for whole in ("it is the bank's", "there is none")}
    (text,) = texts
    assert text.startswith("there is no archive 'archived-a' of namespace shop")


def held_by(namespace: str, **volume: str) -> Volume:
    """A volume of that namespace's, which has the directory."""
    held = samples.volume(name="pv-of-the-bank", **volume)  # type: ignore[arg-type]
    source = structs.replace(samples.SOURCE, path="/exports/vault")
    reference = ClaimRef(namespace, "data", "77")
    return structs.replace(held, spec=structs.replace(held.spec, claim_ref=reference, nfs=source))


@pytest.mark.parametrize("phase", ["Bound", "Released"])
def test_the_cluster_s_volumes(phase: str) -> None:
    """A directory that a volume of another namespace has is refused, or waited for, without its name or place."""
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
    """One that an admin made for nobody yet is nobody's, and not told."""
    held = held_by("shop", phase="Available")
    nobody = structs.replace(held, spec=structs.replace(held.spec, claim_ref=None))
    decision = claims.decide(dataclasses.replace(view(holder=nobody)))
    assert isinstance(decision, Refuse)
    assert "pv-of-the-bank" not in decision.message


def test_an_error_that_names_nobody_is_told_whole() -> None:
    """What is not a refusal for somebody else's sake has one text, for the log and for the event."""
    assert InvalidRecord("too long").event_text == "too long"
