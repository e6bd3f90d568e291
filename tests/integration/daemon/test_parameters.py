"""StorageClass parameters on a real export: paths, rules, ownership, adoption, limits and refusals.

Aliases, defaults and the tables of values that are refused are in tests/unit/core (test_parameters, test_templates).
"""

from __future__ import annotations

import os
import secrets

import pytest

from testbed.api import Api
from tests.support.storage import VOLUMES, ServedStorage

pytestmark = pytest.mark.timeout(120)

STABLE = {"pathPattern": "${.PVC.namespace}/stable"}


# ------------------------------------------------------------------------------------------- pathPattern

PATTERNS = {
    "pathPattern": ("${.PVC.namespace}/a-${.PVC.labels.app}/${.PVC.annotations.example.com/dir}", "a-web/some/where"),
    "subDir": (
        "${pvc.metadata.namespace}/${.PVC.labels.none:-of-${.PVC.labels.no:-${pv.metadata.name}}}", "of-VOLUME",
    ),
    "pathpattern": ("/${.PVC.namespace}//./${.PVC.annotations.example.com/slashes}/ é", "app/data/ é"),
}  # fmt: skip
METADATA = {
    "labels": {"app": "web"},
    "annotations": {"example.com/dir": "some/where", "example.com/slashes": "//app/./data/"},
}


@pytest.mark.parametrize("parameter", PATTERNS)
def test_a_pattern_gives_its_directory(served: ServedStorage, parameter: str) -> None:
    """The variables of both peers work, with and without a fallback, under the parameter names of both peers."""
    pattern, below = PATTERNS[parameter]
    served.claim(served.own_class({parameter: pattern, "onDelete": "delete"}), metadata=METADATA)
    volume = served.bound()
    expected = f"{served.namespace}/{below.replace('VOLUME', volume['metadata']['name'])}"
    assert volume["spec"]["nfs"]["path"] == f"{served.export.path}/{expected}"
    assert (served.export.root / expected).is_dir()
    assert volume["metadata"]["annotations"]["nfs-provisioner/directory"] == expected


def test_the_default_pattern_is_namespace_claim_and_volume(served: ServedStorage) -> None:
    """Without a pattern the directory is `<namespace>-<claim>-<volume>`, as with nfs-subdir."""
    volume = served.volume()
    assert served.directory(volume).name == f"{served.namespace}-data-{volume['metadata']['name']}"


# ------------------------------------------------------------------------------------------- onDelete


@pytest.mark.parametrize(
    ("parameters", "rule"),
    [
        ({}, "archive"),
        ({"archiveOnDelete": "false"}, "delete"),
        ({"onDelete": "Retain", "archiveOnDelete": "false"}, "retain"),
    ],
    ids=str,
)
def test_the_rule_for_deletion_is_recorded_and_kept(
    served: ServedStorage, parameters: dict[str, str], rule: str
) -> None:
    """The class's rule, under either name, is on the volume, and the reclaim follows it."""
    volume = served.volume(parameters)
    directory = served.directory(volume)
    assert volume["metadata"]["annotations"]["nfs-provisioner/on-delete"] == rule
    served.released(volume)
    assert directory.exists() == (rule == "retain")
    assert len(served.export.archives(directory.name)) == (rule == "archive")


# ------------------------------------------------------------------------------------------- mode, uid, gid


def test_a_directory_has_the_mode_of_its_class(served: ServedStorage) -> None:
    """The directory has exactly the class's mode, whatever the daemon's umask; its parents have the default."""
    for name, parameters, mode in (("default", {}, 0o777), ("shared", {"mode": "2770"}, 0o2770)):
        volume = served.volume(parameters | {"pathPattern": "${.PVC.namespace}/${.PVC.name}"}, name)
        assert served.directory(volume).stat().st_mode & 0o7777 == mode
        assert served.directory(volume).parent.stat().st_mode & 0o7777 == 0o755


def test_mode_0_leaves_the_servers_mode(served: ServedStorage) -> None:
    """With mode 0 the daemon sets no mode: the directory has what the server gives to any new one."""
    (plain := served.export.root / f"{served.namespace}-plain").mkdir()
    assert served.directory(served.volume({"mountPermissions": "0"})).stat().st_mode == plain.stat().st_mode


def test_a_directory_has_the_owner_of_its_class(served: ServedStorage) -> None:
    """Uid and gid are set, each independently of the other, and a set-gid mode survives the change of owner."""
    if os.geteuid() != 0:
        pytest.skip("this machine cannot chown: the tests do not run as root")
    cases: dict[str, tuple[dict[str, str], tuple[int, int]]] = {
        "both": ({"uid": "1000", "gid": "2000", "mode": "2770"}, (1000, 2000)),
        "uid": ({"uid": "4294967294"}, (4294967294, os.getegid())),
        "gid": ({"gid": "2000"}, (os.geteuid(), 2000)),
        "none": ({}, (os.geteuid(), os.getegid())),
    }
    for name, (parameters, owner) in cases.items():
        seen = served.directory(served.volume(parameters, name)).stat()
        assert (seen.st_uid, seen.st_gid) == owner
        if name == "both":
            assert seen.st_mode & 0o7777 == 0o2770


# ------------------------------------------------------------------------------------------- existing


def retained(served: ServedStorage) -> str:
    """Write to a volume under a stable name, delete its claim with onDelete retain, and return the volume's name."""
    volume = served.volume(STABLE | {"onDelete": "retain"}, "first")
    (served.directory(volume) / "precious").write_text("kept")
    served.directory(volume).chmod(0o711)
    served.released(volume)
    name: str = volume["metadata"]["name"]
    return name


@pytest.mark.parametrize("parameters", [{"onDelete": "retain"}, {"onDelete": "delete", "existing": "adopt"}], ids=str)
def test_a_retained_directory_is_adopted(served: ServedStorage, parameters: dict[str, str]) -> None:
    """A claim of the same namespace gets a retained directory with its data, by default where the rule is retain."""
    former = retained(served)
    again = served.volume(STABLE | parameters, "second")
    directory = served.directory(again)
    assert (directory / "precious").read_text() == "kept"
    assert directory.stat().st_mode & 0o7777 == 0o711
    served.eventually(lambda: former not in served.export.records, "the former volume's record is gone")
    assert again["metadata"]["name"] in served.export.records
    served.released(again)
    assert directory.exists() == (parameters["onDelete"] == "retain")


@pytest.mark.parametrize("parameters", [{"onDelete": "delete"}, {"onDelete": "retain", "existing": "refuse"}], ids=str)
def test_a_retained_directory_is_not_adopted(served: ServedStorage, parameters: dict[str, str]) -> None:
    """A class that does not adopt, by default or by `existing: refuse`, refuses the claim and keeps the data."""
    former = retained(served)
    served.claim(served.own_class(STABLE | parameters), "second")
    assert "stable" in served.refusal("second")
    assert former in served.export.records
    assert (served.export.root / served.namespace / "stable" / "precious").read_text() == "kept"


def test_another_namespace_adopts_nothing(cluster_api: Api, served: ServedStorage) -> None:
    """A directory that one namespace retained is refused to a claim of another one; data and record stay."""
    path = f"shared-{secrets.token_hex(4)}"
    parameters = {"pathPattern": path, "onDelete": "retain", "existing": "adopt"}
    volume = served.volume(parameters)
    (served.directory(volume) / "precious").write_text("kept")
    served.released(volume)
    other = f"test-{secrets.token_hex(4)}"
    cluster_api.post("/api/v1/namespaces", {"metadata": {"name": other}})
    try:
        storage = ServedStorage(cluster_api, other, daemon=served.daemon, export=served.export)
        storage.claim(served.own_class(parameters))
        assert path in storage.refusal()
    finally:
        cluster_api.delete(f"/api/v1/namespaces/{other}")
    assert (served.export.root / path / "precious").read_text() == "kept"
    assert volume["metadata"]["name"] in served.export.records


def test_a_directory_without_a_record_is_not_adopted(served: ServedStorage) -> None:
    """No claim gets a directory that an admin created by hand, with or without `existing: adopt`."""
    directory = served.export.root / served.namespace / "stable"
    directory.mkdir(parents=True)
    for number, existing in enumerate(("adopt", "refuse")):
        served.claim(served.own_class(STABLE | {"existing": existing}), f"data-{number}")
        assert "exists" in served.refusal(f"data-{number}")
    assert not any(record["ns"] == served.namespace for record in served.export.pending.values())
    directory.rmdir()


def test_a_directory_whose_volume_exists_is_not_adopted(served: ServedStorage) -> None:
    """While the volume of a retained directory exists, Bound or Released, no other claim gets it; then one does."""
    parameters = STABLE | {"onDelete": "retain"}
    volume = served.volume(parameters, "first", reclaimPolicy="Retain")
    class_name = served.own_class(parameters)
    served.claim(class_name, "second")
    assert "overlaps with" in served.refusal("second")
    served.delete_claim("first")
    name = volume["metadata"]["name"]
    served.eventually(lambda: served.get_volume(name)["status"]["phase"] == "Released", "the volume is Released")
    served.claim(class_name, "third")
    assert "overlaps with" in served.refusal("third")
    served.api.delete(f"{VOLUMES}/{name}")
    served.volume_gone(name)
    served.eventually(lambda: len(served.unbound(["second", "third"])) == 1, "one of the two is bound")


def test_one_of_many_waiting_claims_adopts(served: ServedStorage) -> None:
    """A retained directory that several claims wait for goes from one to the next, and never to two of them."""
    class_name = served.own_class(STABLE | {"onDelete": "retain"})
    served.claim(class_name, "first")
    holder = served.bound("first")
    waiting = {f"data-{number}" for number in range(4)}
    for name in waiting:
        served.claim(class_name, name)
    for name in waiting:
        assert "overlaps with" in served.refusal(name)
    while waiting:
        served.released(holder)
        served.eventually(lambda: len(served.unbound(waiting)) < len(waiting), "one of them is bound")
        served.settled()
        [winner] = waiting - set(served.unbound(waiting))
        holder = served.bound(winner)
        path = f"{served.namespace}/stable"
        held = [name for name, record in served.export.records.items() if record["dir"] == path]
        assert held == [holder["metadata"]["name"]]
        waiting.remove(winner)


def test_only_the_whole_directory_is_adopted(served: ServedStorage) -> None:
    """No claim gets a directory above or below a retained one, even with `existing: adopt`."""
    retained(served)
    for name, pattern in (("above", "${.PVC.namespace}"), ("below", "${.PVC.namespace}/stable/below")):
        served.claim(served.own_class({"pathPattern": pattern, "existing": "adopt"}), name)
        assert "overlaps with" in served.refusal(name)


# ------------------------------------------------------------------------------------------- minFree, overcommit


def test_an_export_within_its_limits_serves(served: ServedStorage) -> None:
    """A class whose minFree and overcommit the export keeps gives volumes."""
    served.volume({"minFree": "0.001%", "overcommit": "100000"})


def test_an_export_beyond_its_limits_refuses(served: ServedStorage) -> None:
    """A claim beyond minFree or overcommit is refused with the parameter's name, and gets no directory."""
    for word, value, size in (("minFree", "100%", "1Mi"), ("overcommit", "1", "4Ei")):
        served.claim(served.own_class({word: value}), word.lower(), size=size)
        assert word in served.refusal(word.lower())
    assert served.made() == []


# ------------------------------------------------------------------------------------------- refusals


def test_every_problem_of_a_class_is_in_one_event(served: ServedStorage) -> None:
    """A class with unusable parameters refuses its claims with one event that names class and parameters."""
    class_name = served.own_class({"mode": "x", "onDelete": "x", "odd": "x", "uid": "x"})
    served.claim(class_name)
    message = served.refusal()
    assert class_name in message
    assert [name for name in ("mode", "onDelete", "odd", "uid") if f"parameter {name}" not in message] == []
    assert served.made() == []
