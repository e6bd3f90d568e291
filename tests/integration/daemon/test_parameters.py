"""Each StorageClass parameter, its aliases, defaults and refusals: design.md, "StorageClass parameters"."""

from __future__ import annotations

import os
import secrets

import pytest

from testbed.api import Api
from tests.support.storage import VOLUMES, ServedStorage

pytestmark = pytest.mark.timeout(120)

STABLE = {"pathPattern": "${.PVC.namespace}/stable"}


def needs_root() -> None:
    """Skip where directories cannot be given to others."""
    if os.geteuid() != 0:
        pytest.skip("this machine cannot chown: the tests do not run as root")


# ------------------------------------------------------------------------------------------- pathPattern

PATTERNS = {
    "${.PVC.namespace}/${.PVC.name}": "NAMESPACE/data",
    "${.PVC.namespace}/${.PV.name}": "NAMESPACE/VOLUME",
    "${.PVC.namespace}/a-${.PVC.labels.app}/${.PVC.annotations.example.com/dir}": "NAMESPACE/a-web/some/where",
    "${pvc.metadata.namespace}/${pvc.metadata.name}-${pv.metadata.name}": "NAMESPACE/data-VOLUME",
    "${.PVC.namespace}/${.PVC.labels.none:-fallback}": "NAMESPACE/fallback",
    "${.PVC.namespace}/${.PVC.labels.app:-fallback}": "NAMESPACE/web",
    "${.PVC.namespace}/${.PVC.annotations.empty:-a/b}": "NAMESPACE/a/b",
    "${pvc.metadata.namespace}/${pvc.metadata.name:-x}": "NAMESPACE/data",
    "fixed-${.PVC.namespace} with blanks-é": "fixed-NAMESPACE with blanks-é",
    "/${.PVC.namespace}//./${.PVC.annotations.example.com/slashes}/": "NAMESPACE/app/data",
    "${.PVC.namespace}/${.PVC.annotations.none:-${.PVC.name}}": "NAMESPACE/data",
    "${pvc.metadata.namespace}/${.PVC.labels.none:-of-${.PVC.labels.no:-${pv.metadata.name}}}": "NAMESPACE/of-VOLUME",
}
METADATA = {
    "labels": {"app": "web"},
    "annotations": {"example.com/dir": "some/where", "example.com/slashes": "//app/./data/", "empty": ""},
}


@pytest.mark.parametrize("parameter", ["pathPattern", "subDir"])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_each_spelling_of_a_pattern_names_its_directory(served: ServedStorage, parameter: str, pattern: str) -> None:
    """Both peers' variables, with and without a fallback, work under both peers' parameter names."""
    served.claim(served.own_class({parameter: pattern, "onDelete": "delete"}), metadata=METADATA)
    volume = served.bound()
    name = volume["metadata"]["name"]
    expected = PATTERNS[pattern].replace("NAMESPACE", served.namespace).replace("VOLUME", name)
    assert volume["spec"]["nfs"]["path"] == f"{served.export.path}/{expected}"
    assert (served.export.root / expected).is_dir()
    assert volume["metadata"]["annotations"]["nfs-provisioner/directory"] == expected


def test_the_default_pattern_is_namespace_claim_and_volume(served: ServedStorage) -> None:
    """Without a pattern the directory is `<namespace>-<claim>-<volume>`, as nfs-subdir's."""
    volume = served.volume()
    assert served.directory(volume).name == f"{served.namespace}-data-{volume['metadata']['name']}"


# ------------------------------------------------------------------------------------------- onDelete


@pytest.mark.parametrize(
    ("parameters", "rule"),
    [
        ({}, "archive"),
        ({"onDelete": "delete"}, "delete"),
        ({"onDelete": "archive"}, "archive"),
        ({"onDelete": "retain"}, "retain"),
        ({"archiveOnDelete": "false"}, "delete"),
        ({"archiveOnDelete": "0"}, "delete"),
        ({"archiveOnDelete": "true"}, "archive"),
        ({"onDelete": "Retain", "archiveOnDelete": "false"}, "retain"),
        ({"ondelete": "DELETE", "archiveOnDelete": "true"}, "delete"),
        ({"onDelete": "", "archiveOnDelete": " False "}, "delete"),
        ({"onDelete": "", "archiveOnDelete": "", "subDir": "", "mountPermissions": "", "uid": ""}, "archive"),
    ],
    ids=str,
)
def test_the_rule_for_deletion_is_recorded_and_kept(
    served: ServedStorage, parameters: dict[str, str], rule: str
) -> None:
    """The class's rule, under either name, is on the volume and is what happens to its directory."""
    volume = served.volume(parameters)
    directory = served.directory(volume)
    assert volume["metadata"]["annotations"]["nfs-provisioner/on-delete"] == rule
    served.released(volume)
    assert directory.exists() == (rule == "retain")
    assert len(served.export.archives(directory.name)) == (rule == "archive")


# ------------------------------------------------------------------------------------------- mode, uid, gid


@pytest.mark.parametrize(
    ("parameters", "mode"),
    [
        ({}, 0o777),
        ({"mode": "0750"}, 0o750),
        ({"mode": "2770"}, 0o2770),
        ({"mode": "0o1777"}, 0o1777),
        ({"mountPermissions": "0755"}, 0o755),
        ({"mountPermissions": "777"}, 0o777),
    ],
    ids=str,
)
def test_the_directorys_mode_is_the_classs(served: ServedStorage, parameters: dict[str, str], mode: int) -> None:
    """The mode is set exactly, whatever the daemon's umask, and its parents stay as they are by default."""
    volume = served.volume(parameters | {"pathPattern": "${.PVC.namespace}/${.PVC.name}"})
    assert served.directory(volume).stat().st_mode & 0o7777 == mode
    assert served.directory(volume).parent.stat().st_mode & 0o7777 == 0o755


@pytest.mark.parametrize("parameters", [{"mountPermissions": "0"}, {"mode": "0"}], ids=str)
def test_mode_0_leaves_the_servers_mode(served: ServedStorage, parameters: dict[str, str]) -> None:
    """With mode 0 nothing is set: the directory has what the server gives to any new one."""
    (plain := served.export.root / f"{served.namespace}-plain").mkdir()
    assert served.directory(served.volume(parameters)).stat().st_mode == plain.stat().st_mode


def test_the_directorys_owner_is_the_classs(served: ServedStorage) -> None:
    """Uid and gid are given to the directory, and each alone leaves the other; a set-gid mode outlives the change."""
    needs_root()
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


def kept(served: ServedStorage, parameters: dict[str, str]) -> str:
    """Bring up a volume under a stable name, write to it, and delete its claim; the volume's name."""
    volume = served.volume(STABLE | parameters, "first")
    (served.directory(volume) / "precious").write_text("kept")
    served.directory(volume).chmod(0o711)
    served.released(volume)
    name: str = volume["metadata"]["name"]
    return name


@pytest.mark.parametrize(
    "parameters",
    [{"onDelete": "retain"}, {"onDelete": "delete", "existing": "adopt"}, {"onDelete": "retain", "existing": "adopt"}],
    ids=str,
)
def test_a_retained_directory_is_handed_out_again(served: ServedStorage, parameters: dict[str, str]) -> None:
    """A claim whose directory a former volume of its namespace kept gets it with its data, by default with retain."""
    former = kept(served, {"onDelete": "retain"})
    again = served.volume(STABLE | parameters, "second")
    directory = served.directory(again)
    assert (directory / "precious").read_text() == "kept"
    assert directory.stat().st_mode & 0o7777 == 0o711
    served.eventually(lambda: former not in served.export.records, "the former volume's record has ended")
    assert again["metadata"]["name"] in served.export.records
    served.released(again)
    assert directory.exists() == (parameters["onDelete"] == "retain")


@pytest.mark.parametrize(
    "parameters", [{"onDelete": "delete"}, {}, {"onDelete": "retain", "existing": "refuse"}], ids=str
)
def test_a_retained_directory_is_refused_to_others(served: ServedStorage, parameters: dict[str, str]) -> None:
    """Without `existing: adopt`, said or by default, a directory that is there is not handed out."""
    former = kept(served, {"onDelete": "retain"})
    served.claim(served.own_class(STABLE | parameters), "second")
    assert "stable" in served.refusal("second")
    assert former in served.export.records
    assert (served.export.root / served.namespace / "stable" / "precious").read_text() == "kept"


def test_another_namespace_adopts_nothing(cluster_api: Api, served: ServedStorage) -> None:
    """A directory that one namespace kept is refused to a claim of another one, data and record untouched."""
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


def test_a_directory_of_no_record_is_not_adopted(served: ServedStorage) -> None:
    """What somebody made by hand is handed to nobody, `existing: adopt` or not."""
    directory = served.export.root / served.namespace / "stable"
    directory.mkdir(parents=True)
    for number, existing in enumerate(("adopt", "refuse")):
        served.claim(served.own_class(STABLE | {"existing": existing}), f"data-{number}")
        assert "exists" in served.refusal(f"data-{number}")
    assert not any(record["ns"] == served.namespace for record in served.export.pending.values())
    directory.rmdir()


def test_a_directory_whose_volume_is_there_is_not_adopted(served: ServedStorage) -> None:
    """While the volume of a retained directory exists, bound or Released, nobody else gets it; after that, yes."""
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


def test_of_many_that_may_adopt_one_does(served: ServedStorage) -> None:
    """A retained directory that eight claims wait for goes from one to the next, and never to two of them."""
    class_name = served.own_class(STABLE | {"onDelete": "retain"})
    served.claim(class_name, "first")
    holder = served.bound("first")
    waiting = {f"data-{number}" for number in range(8)}
    for name in waiting:
        served.claim(class_name, name)
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


def test_adoption_is_of_the_whole_directory_only(served: ServedStorage) -> None:
    """A directory above or below a retained one is not handed out, `existing: adopt` or not."""
    kept(served, {"onDelete": "retain"})
    for name, pattern in (("above", "${.PVC.namespace}"), ("below", "${.PVC.namespace}/stable/below")):
        served.claim(served.own_class({"pathPattern": pattern, "existing": "adopt"}), name)
        assert "overlaps with" in served.refusal(name)


# ------------------------------------------------------------------------------------------- minFree, overcommit


@pytest.mark.parametrize(
    "parameters",
    [{"minFree": "1Mi"}, {"minFree": "0%"}, {"minFree": "0.001%"}, {"overcommit": "100000"}],
    ids=str,
)
def test_an_export_with_room_serves(served: ServedStorage, parameters: dict[str, str]) -> None:
    """A class with bounds that the export keeps gives volumes."""
    served.volume(parameters)


@pytest.mark.parametrize(
    ("parameters", "size", "word"),
    [
        ({"minFree": "8Ei"}, "1Mi", "minFree"),
        ({"minFree": "100%"}, "1Mi", "minFree"),
        ({"overcommit": "1"}, "4Ei", "overcommit"),
    ],
    ids=str,
)
def test_an_export_without_room_is_refused(
    served: ServedStorage, parameters: dict[str, str], size: str, word: str
) -> None:
    """A claim that would pass the class's bounds is refused with the bound's name, and gets no directory."""
    served.claim(served.own_class(parameters), size=size)
    assert word in served.refusal()
    assert served.made() == []


# ------------------------------------------------------------------------------------------- refusals

REFUSED = {
    "unknown": ({"onDeleted": "delete"}, ["onDeleted", "onDelete"]),
    "mount options": ({"mountOptions": "nfsvers=4.1"}, ["mountOptions", "field of the StorageClass"]),
    "two cases": ({"onDelete": "delete", "ondelete": "retain"}, ["onDelete", "ondelete"]),
    "pattern and alias": ({"pathPattern": "x", "subDir": "y"}, ["pathPattern", "subDir"]),
    "rule beside the flag": ({"onDelete": "keep", "archiveOnDelete": "false"}, ["onDelete"]),
    "mode and alias": ({"mode": "0777", "mountPermissions": "0770"}, ["mode", "mountPermissions"]),
    "rule": ({"onDelete": "keep"}, ["onDelete", "delete, archive, retain"]),
    "archive flag": ({"archiveOnDelete": "no"}, ["archiveOnDelete", "true or false"]),
    "variable": ({"pathPattern": "${.PVC.uid}"}, ["pathPattern", "${.PVC.uid}", "${.PVC.namespace}"]),
    "open variable": ({"subDir": "${.PVC.name"}, ["subDir", "not closed"]),
    "Go template": ({"pathPattern": "{{ .PVC.Name }}"}, ["pathPattern", "Go template", "${.PVC.name}"]),
    "no braces": ({"subDir": "$pvc.metadata.name"}, ["subDir", "braces", "${pvc.metadata.name}"]),
    "odd mode": ({"mode": "0888"}, ["mode", "octal"]),
    "symbolic mode": ({"mountPermissions": "u=rwx"}, ["mountPermissions", "octal"]),
    "large mode": ({"mode": "17777"}, ["mode", "octal"]),
    "uid name": ({"uid": "root"}, ["uid", "numeric"]),
    "gid sign": ({"gid": "-1"}, ["gid", "numeric"]),
    "existing": ({"existing": "reuse"}, ["existing", "refuse, adopt"]),
    "free": ({"minFree": "much"}, ["minFree"]),
    "free share": ({"minFree": "101%"}, ["minFree"]),
    "overcommit": ({"overcommit": "150%"}, ["overcommit"]),
    "retention": ({"archiveRetention": "a month"}, ["archiveRetention", "30d"]),
    "server alone": ({"server": "nas.test"}, ["server", "share"]),
    "share alone": ({"share": "/exports"}, ["server", "share"]),
    "relative share": ({"server": "nas.test", "share": "exports"}, ["share", "begin with /"]),
    "share upwards": ({"server": "nas.test", "share": "/exports/../etc"}, ["share"]),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_used_is_refused_by_name(served: ServedStorage, case: str) -> None:
    """A parameter that we cannot use refuses the claim with an event that names it and what is allowed."""
    parameters, words = REFUSED[case]
    class_name = served.own_class(parameters)
    served.claim(class_name)
    message = served.refusal()
    assert class_name in message
    assert [word for word in words if word not in message] == []
    assert served.made() == []


def test_all_that_is_wrong_is_said_at_once(served: ServedStorage) -> None:
    """Of several parameters that cannot be used, one event names each."""
    served.claim(served.own_class({"mode": "x", "onDelete": "x", "odd": "x", "uid": "x"}))
    message = served.refusal()
    assert [name for name in ("mode", "onDelete", "odd", "uid") if f"parameter {name}" not in message] == []
