"""core.listing: the row of a volume, by what it says of itself."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from provisioner.core import names
from provisioner.core.listing import age, listed
from provisioner.core.objects import NfsSource
from provisioner.core.quota import Answer
from tests.support.samples import DIRECTORY, VOLUME, volume

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)


def test_a_volume_of_ours() -> None:
    """A volume is listed with its claim, its export and its directory."""
    found = listed(volume(phase="Bound", annotations={names.DIRECTORY: DIRECTORY}))
    assert (found.volume, found.namespace, found.claim, found.storage_class) == (VOLUME, "shop", "data", "nfs")
    assert (found.phase, found.capacity) == ("Bound", "1Gi")
    assert (found.export, found.directory) == ("nas:/exports", DIRECTORY)
    assert found.on_delete == "delete"


def test_a_volume_at_a_servers_root() -> None:
    """An export that is a server's root is listed as such."""
    found = listed(volume(annotations={names.DIRECTORY: "a/b"}, nfs=NfsSource("::1", "/a/b")))
    assert (found.export, found.directory) == ("[::1]:/", "a/b")


def test_a_volume_at_another_port() -> None:
    """An export is spelled as everywhere: with a normal name, and with its port if that is not 2049."""
    made = volume(annotations={names.DIRECTORY: "a"}, nfs=NfsSource("NAS", "/exports/a"))
    for options, export in (
        (("nfsvers=4.1,port=2050",), "nas:/exports port 2050"),
        (("port=2049",), "nas:/exports"),
        (("port=many",), "NAS:/exports"),
    ):
        found = listed(structs.replace(made, spec=structs.replace(made.spec, mount_options=options)))
        assert (found.export, found.directory) == (export, "a")


def test_a_volume_that_does_not_say_its_directory() -> None:
    """If a volume does not say, or not correctly, where its export ends, server and whole path are listed."""
    for said in ({}, {names.DIRECTORY: "elsewhere"}):
        found = listed(volume(annotations=said))
        assert (found.export, found.directory) == ("nas", f"/exports/{DIRECTORY}")


def test_the_usage_of_a_volume() -> None:
    """Usage and limit come from the agent's answer: none while the content is not counted, and with its reason."""
    bare = listed(volume())
    assert (bare.used_bytes, bare.limit_bytes, bare.limit_reason, bare.limit_why) == (None, None, "", "")
    full = listed(volume(), Answer(limit_bytes=9, used_bytes=8, whole=True))
    assert (full.used_bytes, full.limit_bytes, full.limit_reason) == (8, 9, "")
    busy = listed(volume(), Answer(used_bytes=8, reason="busy", why="2 files are open"))
    assert (busy.used_bytes, busy.limit_bytes) == (None, None)
    assert (busy.limit_reason, busy.limit_why) == ("busy", "2 files are open")


def test_a_forged_volume() -> None:
    """A volume without claim and source is listed, too."""
    found = listed(volume(claim_uid=None, nfs=None, annotations={names.DIRECTORY: "x"}))
    assert (found.namespace, found.claim, found.export, found.directory) == ("", "", "", "")


def test_what_becomes_of_it() -> None:
    """The reclaim policy overrides the annotation, and a volume that is being deleted is Terminating."""
    assert listed(volume(policy="Retain")).on_delete == "retain"
    assert listed(volume(annotations={names.ON_DELETE: "archive"})).on_delete == "archive"
    assert listed(volume(deleted=True)).phase == "Terminating"


@pytest.mark.parametrize(
    ("ago", "text"),
    [
        (timedelta(seconds=-5), "0s"),
        (timedelta(seconds=59), "59s"),
        (timedelta(minutes=3, seconds=20), "3m20s"),
        (timedelta(minutes=125), "125m"),
        (timedelta(hours=5, minutes=12), "5h12m"),
        (timedelta(hours=30), "30h"),
        (timedelta(days=3, hours=4), "3d4h"),
        (timedelta(days=400), "400d"),
    ],
    ids=str,
)
def test_age(ago: timedelta, text: str) -> None:
    """An age has at most two units, larger ones for older objects."""
    assert age((NOW - ago).strftime("%Y-%m-%dT%H:%M:%SZ"), NOW) == text


@given(st.text())
def test_an_age_of_anything(created: str) -> None:
    """A text that is not a time, or a time without a zone, has no age."""
    assert isinstance(age(created, NOW), str)
    assert age("yesterday", NOW) == age("2026-05-01T12:00:00", NOW) == ""
