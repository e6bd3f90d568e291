"""core.locations."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioner.core.errors import InvalidSettings
from provisioner.core.locations import Location, RelPath, location, normal_server, parse

NAMES = st.text(st.characters(exclude_characters="/", exclude_categories=("Cc", "Cs")), min_size=1).filter(
    lambda name: name not in (".", "..")
)
PATHS = st.lists(NAMES, max_size=4).map(tuple)
SERVERS = st.sampled_from(["nas", "10.0.0.1", "nas.example.com", "fd00::1"])


@pytest.mark.parametrize(
    ("text", "server", "path"),
    [
        ("nas:/exports/k8s", "nas", "/exports/k8s"),
        ("NAS.Example.com:/exports//k8s/", "nas.example.com", "/exports/k8s"),
        ("nas:/", "nas", "/"),
        ("[FD00::1]:/x", "fd00::1", "/x"),
        ("fd00::1:/x", "fd00::1", "/x"),
        ("nas:/a:/b", "nas", "/a:/b"),
        (" nas :/a", "nas", "/a"),
    ],
)
def test_parse(text: str, server: str, path: str) -> None:
    """All spellings of an export are parsed to one location."""
    assert parse(text) == Location(server, path)


@pytest.mark.parametrize(
    "text",
    ["", "nas", "nas:exports", "/exports", ":/x", "[]:/x", "na s:/x", "a/b:/x", "n\x00s:/x",
     "nas:/a/../b", "nas:/./a", "nas:/a\nb", "nas:/a\x7fb"],
)  # fmt: skip
def test_parse_refuses(text: str) -> None:
    """Anything but a server with an absolute path of valid names is refused."""
    with pytest.raises(InvalidSettings):
        parse(text)


@pytest.mark.parametrize(
    "server",
    [
        "nas",
        "NAS.Example.com",
        "nas.example.com.",
        "nas_1.internal",
        "10.0.0.1",
        "fd00::1",
        "[fd00::1]",
        "fe80::1%eth0",
        "::ffff:10.0.0.1",
        "xn--bcher-kva.example",
        "x" * 63 + ".example.com",
        ".".join(["x" * 49] * 5) + ".abc.",
    ],
)
def test_servers(server: str) -> None:
    """Names and addresses that nodes can resolve are accepted; only case and brackets are normalised."""
    assert location(server, "/x").server == server.lower().strip("[]")


@pytest.mark.parametrize(
    ("server", "words"),
    [
        ("", "it is empty"),
        ("nas..example.com", "an empty label"),
        (".example.com", "an empty label"),
        (".", "an empty label"),
        ("x" * 64 + ".example.com", "one label is too long"),
        (".".join(["x" * 50] * 5), "254 characters"),
        ("b\u00fccher.example", "xn--"),
        ("\ud800", "beyond ASCII"),
        ("n\0s", "not allowed"),
        ("na s", "not allowed"),
        ("-nas", "not allowed"),
        ("nas/exports", "has a path in it"),
        ("[nas", "not allowed"),
        ("nas:exports", "not an IPv6 address"),
        ("fd00::1::2", "not an IPv6 address"),
        ("fe80::1%eth 0", "network interface"),
        ("nas:2049", "port=2049 into the class's mountOptions"),
        ("[fd00::1]:2049", "port=2049 into the class's mountOptions"),
    ],
)
def test_servers_that_there_cannot_be(server: str, words: str) -> None:
    """A server that no resolver accepts is refused with the word server, the problem, and what to write."""
    with pytest.raises(InvalidSettings, match=r"^server ") as caught:
        location(server, "/x")
    assert words in str(caught.value)


@given(st.text())
def test_any_server(server: str) -> None:
    """Any text is accepted as a server or refused with a message; an accepted one is ASCII."""
    try:
        where = location(server, "/x")
    except InvalidSettings:
        return
    assert where.server.isascii()
    assert parse(str(where)) == where


def test_relative_path_is_refused() -> None:
    """An export's path begins at the server's root."""
    with pytest.raises(InvalidSettings, match="must begin with /"):
        location("nas", "exports")


@pytest.mark.parametrize(
    ("server", "share", "words"),
    [
        ("nas:2049", "/x", ("has a port", "'nas'", "port=2049")),
        ("127.0.0.1:12049", "/x", ("'127.0.0.1'", "port=12049")),
        ("[fd00::1]:2049", "/x", ("'[fd00::1]'", "port=2049")),
        ("nfs://nas/exports/k8s", "/x", ("is a URL", "'nas'", "'/exports/k8s'")),
        ("NFS://nas:2050/x", "/x", ("'nas'", "'/x'", "port=2050")),
        ("https://nas", "/x", ("is a URL", "'nas'")),
        ("nas:/exports", "/x", ("has a path", "'nas'", "'/exports'")),
        ("nas/exports", "/x", ("has a path", "'nas'", "'/exports'")),
        ("[fd00::1]:/exports", "/x", ("'[fd00::1]'", "'/exports'")),
        ("\\\\nas\\share\\k8s", "/x", ("SMB", "'nas'", "'/share/k8s'")),
        ("//nas/share", "/x", ("SMB", "'nas'", "'/share'")),
        ("/exports", "/x", ("is a path", "share")),
        ("nas", "nas:/exports", ("has the server in it", "'/exports'")),
        ("nas", "nfs://nas/exports", ("has the server in it", "'/exports'")),
        ("nas", "\\share", ("SMB",)),
    ],
)
def test_a_server_or_a_path_that_says_too_much(server: str, share: str, words: tuple[str, ...]) -> None:
    """A port, a path, a URL or an SMB share in the wrong place is refused with what to write instead."""
    with pytest.raises(InvalidSettings) as caught:
        location(server, share)
    assert all(word in str(caught.value) for word in words)


def test_a_url_is_no_export() -> None:
    """A URL instead of SERVER:PATH is refused with what to write, and not parsed as a server named nfs."""
    with pytest.raises(InvalidSettings, match=r"write nas:/x, and port=2050"):
        parse("nfs://nas:2050/x")


@given(SERVERS, PATHS)
def test_round_trip(server: str, path: RelPath) -> None:
    """The text of an export in messages and volumes parses to the same export."""
    where = location(server, "/" + "/".join(path))
    assert parse(str(where)) == where
    assert where.components == path


@given(SERVERS, PATHS, PATHS)
def test_below_and_relative(server: str, root: RelPath, path: RelPath) -> None:
    """A directory's absolute path gives back its components below the export, for any spelling of the server."""
    where = location(server, "/" + "/".join(root))
    assert where.relative(server.upper(), where.below(path)) == path
    assert where.relative(f"[{server}]", where.below(path) + "//") == path


@pytest.mark.parametrize(
    ("server", "path"),
    [("other", "/exports/a"), ("nas", "/elsewhere/a"), ("nas", "/exportsa"), ("nas", "/"), ("nas", "exports/a")],
)
def test_elsewhere(server: str, path: str) -> None:
    """A path on another server, or next to the export, is not below it, even if it starts with the same characters."""
    assert Location("nas", "/exports").relative(server, path) is None


def test_dots_stay() -> None:
    """Dots are not resolved: the caller must see them."""
    assert Location("nas", "/exports").relative("nas", "/exports/a/../../b") == ("a", "..", "..", "b")


def test_normal_server() -> None:
    """Servers are compared without case, blanks and brackets."""
    assert normal_server(" [FD00::1] ") == "fd00::1"
    assert normal_server("[half") == "[half"


def test_what_is_not_unicode() -> None:
    """An export whose name is not UTF-8 is refused with a printable message: no volume could name it."""
    with pytest.raises(InvalidSettings, match="not valid UTF-8") as caught:
        parse("nas:/caf\udce9")
    str(caught.value).encode()
