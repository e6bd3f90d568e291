"""core.parameters."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioner.core.errors import InvalidSettings
from provisioner.core.groups import GidRange
from provisioner.core.locations import Location
from provisioner.core.parameters import ALIASES, KNOWN, AutoGrow, MinFree, Ownership, Schedule, as_written, parse
from provisioner.core.templates import DEFAULT

GROWS = {"quota": "preferred", "autoGrow": "12.5%", "autoGrowLimit": "100Gi"}


def test_a_schedule() -> None:
    """A class can make snapshots, and keep all of them or some."""
    assert parse({}).schedule is None
    assert parse({"schedule": "0 3 * * *"}).schedule == Schedule(cron="0 3 * * *", keep=None)
    assert parse({"Schedule": "0 3 * * *", "keep": "7"}).schedule == Schedule(cron="0 3 * * *", keep=7)


def test_defaults() -> None:
    """A class without parameters archives, on the default export, in the default directory, writable for all."""
    parameters = parse({})
    assert parameters.export is None
    assert parameters.template == DEFAULT
    assert parameters.on_delete == "archive"
    assert parameters.access == Ownership(mode=0o777, uid=None, gid=None)
    assert not parameters.adopt
    assert parameters.min_free is None
    assert parameters.overcommit is None


@pytest.mark.parametrize(
    ("given_", "field", "value"),
    [
        ({"server": "NAS", "share": "/exports/"}, "export", Location("nas", "/exports")),
        ({"onDelete": "delete"}, "on_delete", "delete"),
        ({"onDelete": "retain"}, "on_delete", "retain"),
        ({"archiveOnDelete": "true"}, "on_delete", "archive"),
        ({"archiveOnDelete": "T"}, "on_delete", "archive"),
        ({"archiveOnDelete": "false"}, "on_delete", "delete"),
        ({"archiveOnDelete": "0"}, "on_delete", "delete"),
        ({"onDelete": "delete", "archiveOnDelete": "true"}, "on_delete", "delete"),
        ({"onDelete": "retain", "archiveOnDelete": "false"}, "on_delete", "retain"),
        ({"onDelete": "archive", "archiveOnDelete": "?"}, "on_delete", "archive"),
        ({"mode": "0770"}, "access", Ownership(mode=0o770)),
        ({"mode": "2775"}, "access", Ownership(mode=0o2775)),
        ({"mode": "0o750"}, "access", Ownership(mode=0o750)),
        ({"mountPermissions": "0755"}, "access", Ownership(mode=0o755)),
        ({"mountPermissions": "0"}, "access", Ownership(mode=None)),
        ({"uid": "1000", "gid": "0"}, "access", Ownership(uid=1000, gid=0)),
        ({"uid": "4294967294"}, "access", Ownership(uid=2**32 - 2)),
        ({"gid": "auto"}, "groups", GidRange(50000, 59999)),
        ({"GID": " Auto\n", "gidrange": " 1000-1000 "}, "groups", GidRange(1000, 1000)),
        ({"gid": "auto", "gidRange": "60000 - 65533"}, "groups", GidRange(60000, 65533)),
        ({"gid": "auto", "gidRange": ""}, "groups", GidRange(50000, 59999)),
        ({"gid": "auto", "gidRange": "65535-2147483647"}, "groups", GidRange(65535, 2**31 - 1)),
        ({"gid": "1000", "gidRange": ""}, "groups", None),
        ({"gid": "auto", "uid": "7"}, "access", Ownership(mode=0o2770, uid=7)),
        ({"gid": "auto", "mode": "0750"}, "access", Ownership(mode=0o750)),
        ({"gid": "auto", "mountPermissions": "0"}, "access", Ownership(mode=None)),
        ({}, "quota", "none"),
        ({"quota": ""}, "quota", "none"),
        ({"quota": "none"}, "quota", "none"),
        ({"quota": "preferred"}, "quota", "preferred"),
        ({"Quota": " Required\n"}, "quota", "required"),
        ({"existing": "adopt"}, "adopt", True),
        ({"onDelete": "retain", "existing": "refuse"}, "adopt", False),
        ({"minFree": "10Gi"}, "min_free", MinFree(bytes=10 * 2**30)),
        ({"minFree": "5%"}, "min_free", MinFree(fraction=0.05)),
        ({"overcommit": "1.5"}, "overcommit", 1.5),
        ({"archiveRetention": "30d"}, "retention", "30d"),
        ({"archiveRetention": " 1h30m "}, "retention", "1h30m"),
        ({"archiveRetention": "90"}, "retention", "90"),
        ({}, "retention", ""),
        ({"onDelete": "Retain"}, "on_delete", "retain"),
        ({"onDelete": "DELETE", "archiveOnDelete": "true"}, "on_delete", "delete"),
        ({"ONDELETE": " archive "}, "on_delete", "archive"),
        ({"archiveondelete": "fAlSe"}, "on_delete", "delete"),
        ({"archiveOnDelete": " TRUE\n"}, "on_delete", "archive"),
        ({"onDelete": "", "archiveOnDelete": "false"}, "on_delete", "delete"),
        ({"onDelete": "", "ondelete": "retain"}, "on_delete", "retain"),
        ({"existing": "Adopt"}, "adopt", True),
        ({"existing": ""}, "adopt", None),
        ({"formernamespace": "Accept"}, "accepts_former", True),
        ({"formerNamespace": "refuse"}, "accepts_former", False),
        ({"Mode": " 770 "}, "access", Ownership(mode=0o770)),
        ({"mode": "000777"}, "access", Ownership(mode=0o777)),
        ({"mode": "0O700"}, "access", Ownership(mode=0o700)),
        ({"mountpermissions": "777"}, "access", Ownership(mode=0o777)),
        ({"mountPermissions": "00"}, "access", Ownership(mode=None)),
        ({"mode": "0", "mountPermissions": ""}, "access", Ownership(mode=None)),
        ({"gid": "none", "UID": "7"}, "access", Ownership(uid=7)),
        ({"uid": " ", "gid": "\t"}, "access", Ownership()),
        ({"Server": "nas", "SHARE": " //exports//k8s/ "}, "export", Location("nas", "/exports/k8s")),
        ({"server": "", "share": ""}, "export", None),
        ({"minfree": " 5% "}, "min_free", MinFree(fraction=0.05)),
        ({"minFree": ""}, "min_free", None),
        ({"overCommit": "2 "}, "overcommit", 2.0),
        ({"overcommit": ""}, "overcommit", None),
        ({"archiveRetention": ""}, "retention", ""),
        (GROWS, "auto_grow", AutoGrow(fraction=0.125, limit_bytes=100 << 30)),
        ({"quota": "preferred"}, "auto_grow", None),
        ({"csi.storage.k8s.io/fstype": "nfs"}, "ignored", ("csi.storage.k8s.io/fstype",)),
        (
            {"csi.storage.k8s.io/provisioner-secret-name": "x", "csi.storage.k8s.io/node-stage-secret-namespace": ""},
            "ignored",
            ("csi.storage.k8s.io/node-stage-secret-namespace", "csi.storage.k8s.io/provisioner-secret-name"),
        ),
    ],
    ids=str,
)
def test_accepted(given_: dict[str, str], field: str, value: object) -> None:
    """Each parameter and each alias means what the documentation says."""
    assert getattr(parse(given_), field) == value


@pytest.mark.parametrize("name", ["pathPattern", "subDir", "pathpattern", "SUBDIR", " subDir "])
def test_pattern(name: str) -> None:
    """The pattern can have nfs-subdir's or csi-driver-nfs's parameter name, in any case."""
    assert parse({name: " a/${.PVC.name}\n"}).template.text == "a/${.PVC.name}"


@pytest.mark.parametrize(
    "given_", [{"pathPattern": ""}, {"subDir": " "}, {"subDir": "", "pathPattern": "\n", "subdir": ""}], ids=str
)
def test_an_empty_pattern_is_the_default(given_: dict[str, str]) -> None:
    """An empty pattern, as other provisioners' charts write it, counts as unset."""
    assert parse(given_).template == DEFAULT


@given(st.sampled_from((*KNOWN, *ALIASES)).flatmap(lambda name: st.tuples(st.just(name), st.text(" \t\n", max_size=3))))
def test_an_empty_value_is_an_unset_one(given_: tuple[str, str]) -> None:
    """Any parameter with an empty value counts as unset."""
    assert parse(dict([given_])) == parse({})


@pytest.mark.parametrize(
    ("given_", "problem"),
    [
        ({"pathpatern": "x"}, "parameter pathpatern is unknown: use one of server, "),
        ({"onDelet": ""}, "parameter onDelet is unknown"),
        ({"mountOptions": "nfsvers=4.1"}, "parameter mountOptions is a field of the StorageClass"),
        ({"reclaimPolicy": "Retain"}, "parameter reclaimPolicy is a field of the StorageClass"),
        ({"rootSquash": "true"}, "parameter rootSquash .* options on the server"),
        ({"nfsServer": "nas"}, "parameter nfsServer is unknown: use server"),
        ({"csi.storage.k8s.io/pvc/name": "x"}, "parameter csi.storage.k8s.io/pvc/name is unknown"),
        ({"pathPattern": "{{ .PVC.Name }}"}, r"parameter pathPattern: .* Go template.*write \$\{\.PVC\.name\}"),
        ({"gid": "automatic"}, "parameter gid: 'automatic' is not a numeric id such as 1000, and not auto"),
        (
            {"gid": "auto", "gidRange": "50000"},
            "parameter gidRange: '50000' is not a range of group ids such as 50000-",
        ),
        (
            {"gid": "auto", "gidRange": "59999-50000"},
            "parameter gidRange: '59999-50000' contains no id: .* lower id first",
        ),
        ({"gid": "auto", "gidRange": "0-9"}, "parameter gidRange: '0-9' contains 0, the group of root: begin at 1"),
        (
            {"gid": "auto", "gidRange": "1-2147483648"},
            "parameter gidRange: .* exceeds 2147483647, the highest group id",
        ),
        ({"gid": "auto", "gidRange": "60000-70000"}, "parameter gidRange: .* contains 65534, the group of anonymous"),
        ({"gid": "1000", "GidRange": "5-9"}, "parameter GidRange needs gid: auto: add that, or remove GidRange"),
        ({"gidMin": "1000"}, "parameter gidMin is unknown: use gidRange, such as 50000-59999"),
        ({"gidAllocate": "true"}, "parameter gidAllocate is unknown: use gid: auto"),
        ({"archiveOnDelete": "yes"}, "parameter archiveOnDelete: 'yes' is not true or false"),
        ({"onDelete": "keep"}, "parameter onDelete: 'keep' is not one of delete, archive, retain"),
        ({"archiveOnDelete": "maybe"}, "parameter archiveOnDelete: 'maybe' is not true or false"),
        ({"subDir": "${x}"}, "parameter subDir"),
        ({"mode": "0888"}, "parameter mode"),
        ({"mode": "17777"}, "parameter mode"),
        ({"mode": "rwx"}, "parameter mode"),
        ({"mode": "-1"}, "parameter mode"),
        ({"mountPermissions": "x"}, "parameter mountPermissions"),
        ({"uid": "root"}, "parameter uid"),
        ({"gid": "-1"}, "parameter gid"),
        ({"gid": "4294967295"}, "parameter gid"),
        ({"existing": "yes"}, "parameter existing: 'yes' is not one of refuse, adopt"),
        ({"formerNamespace": "yes"}, "parameter formerNamespace: 'yes' is not one of refuse, accept"),
        ({"minFree": "lots"}, "parameter minFree"),
        ({"minFree": "101%"}, "parameter minFree"),
        ({"minFree": "-1Gi"}, "parameter minFree: '-1Gi' is negative"),
        ({"minFree": "x%"}, "parameter minFree"),
        ({"overcommit": "0"}, "parameter overcommit"),
        ({"quota": "true"}, "parameter quota"),
        ({"overcommit": "much"}, "parameter overcommit"),
        ({"keep": "7"}, "parameter keep needs schedule: add that, or remove keep"),
        ({"schedule": "0 3 * * *", "keep": "0"}, "parameter keep: '0' is not a number of snapshots such as 7"),
        ({"schedule": "daily"}, "parameter schedule: 'daily' is not a schedule of five fields"),
        ({"autoGrow": "20%"}, "parameter autoGrow needs autoGrowLimit: add that, or remove autoGrow"),
        ({"AutoGrowLimit": "1Gi"}, "parameter AutoGrowLimit needs autoGrow: add that, or remove AutoGrowLimit"),
        (
            {"autoGrow": "20%", "autoGrowLimit": "9Gi"},
            "parameter autoGrow needs quota: preferred or required, .*; parameter autoGrowLimit needs quota",
        ),
        ({**GROWS, "autoGrow": "20"}, "parameter autoGrow: '20' is not a percentage of the volume's size such as 20%"),
        ({**GROWS, "autoGrow": "0%"}, "parameter autoGrow: '0%' is not a percentage"),
        ({**GROWS, "autoGrow": "\u0662\u0660%"}, "is not a percentage"),  # digits of another script
        ({**GROWS, "autoGrow": "20 %"}, "parameter autoGrow: '20 %' is not a percentage"),
        ({**GROWS, "autoGrow": "101%"}, "parameter autoGrow: '101%' is not a percentage .* up to 100%"),
        ({**GROWS, "autoGrowLimit": "0"}, "parameter autoGrowLimit: '0' lets no volume grow: write a size such as"),
        ({**GROWS, "autoGrowLimit": "all"}, "parameter autoGrowLimit: 'all' is not a quantity"),
        ({"archiveRetention": "a month"}, "parameter archiveRetention: 'a month' is not a duration"),
        ({"archiveRetention": "0"}, "parameter archiveRetention: '0' would keep no archive at all"),
        ({"server": "nas"}, "server and share belong together"),
        ({"share": "/x"}, "server and share belong together"),
        ({"server": "nas", "share": "x"}, "parameters server and share: .* must begin with /"),
    ],
    ids=str,
)
def test_refused(given_: dict[str, str], problem: str) -> None:
    """A parameter that cannot be used is refused, with its name as written and what is allowed."""
    with pytest.raises(InvalidSettings, match=problem):
        parse(given_)


@pytest.mark.parametrize(
    ("given_", "names"),
    [
        ({"pathPattern": "x", "subDir": "y"}, "pathPattern and subDir"),
        ({"mode": "0770", "mountPermissions": "0777"}, "mode and mountPermissions"),
        ({"onDelete": "delete", "ondelete": "retain"}, "onDelete and ondelete"),
        ({"archiveOnDelete": "true", "archiveondelete": "false"}, "archiveOnDelete and archiveondelete"),
        ({"subDir": "x", "subdir": "y"}, "subDir and subdir"),
        ({"server": "a", "Server": "b", "share": "/x"}, "Server and server"),
        ({"uid": "1", "UID": "2"}, "UID and uid"),
    ],
    ids=str,
)
def test_two_spellings_that_differ(given_: dict[str, str], names: str) -> None:
    """Two names of one parameter with different values are refused, and both are named."""
    with pytest.raises(InvalidSettings, match=f"parameters {names} mean the same and have different values"):
        parse(given_)


@pytest.mark.parametrize(
    "given_",
    [
        {"pathPattern": "x/${.PVC.name}", "subDir": "/x/${.PVC.name}/"},
        {"mode": "0770", "mountPermissions": "770"},
        {"onDelete": "Delete", "ondelete": "delete"},
        {"onDelete": "retain", "archiveOnDelete": "false", "archiveondelete": "true"},
        {"uid": "1", "UID": " 1"},
    ],
    ids=str,
)
def test_two_spellings_that_agree(given_: dict[str, str]) -> None:
    """Two names of one parameter with the same meaning are accepted."""
    first, *_ = given_.items()
    assert parse(given_) == parse(dict([first]))


def test_as_written() -> None:
    """A message can name a parameter as the class spells it."""
    assert as_written("pathPattern", {"subdir": "x"}) == "subdir"
    assert as_written("pathPattern", {"mode": "0770"}) == "pathPattern"


def test_all_problems_at_once() -> None:
    """All problems of a class are reported together."""
    with pytest.raises(InvalidSettings) as caught:
        parse({"server": "nas", "mode": "x", "colour": "red"})
    assert all(word in str(caught.value) for word in ("share", "mode", "colour"))


@pytest.mark.parametrize(
    ("min_free", "size_bytes", "kept_bytes"),
    [(MinFree(bytes=10), 100, 10), (MinFree(fraction=0.05), 1000, 50), (MinFree(), 1000, 0)],
)
def test_min_free(min_free: MinFree, size_bytes: int, kept_bytes: int) -> None:
    """The value of minFree is a number of bytes or a share of the export."""
    assert min_free.of(size_bytes) == kept_bytes


@given(st.dictionaries(st.sampled_from((*KNOWN, *ALIASES)), st.text(max_size=20)))
def test_any_values(given_: dict[str, str]) -> None:
    """Any parameters are parsed or refused with InvalidSettings, never with another error."""
    with contextlib.suppress(InvalidSettings):
        mode = parse(given_).access.mode
        assert mode is None or 0 < mode <= 0o7777


@pytest.mark.parametrize(
    ("parameters", "asked"),
    [({}, False), ({"mode": "0777"}, True), ({"mountPermissions": "0"}, True), ({"uid": "1000"}, False)],
)
def test_whether_a_mode_was_asked_for(parameters: dict[str, str], asked: bool) -> None:
    """A mode that the class sets must be set by the server; the default need not be."""
    assert parse(parameters).access.mode_asked is asked


@pytest.mark.parametrize(
    ("given", "reclaim_policy", "adopts"),
    [
        ({}, "Delete", False),
        ({}, "Retain", True),
        ({"onDelete": "retain"}, "Delete", True),
        ({"onDelete": "retain", "existing": "refuse"}, "Retain", False),
        ({"onDelete": "delete", "existing": "adopt"}, "Delete", True),
    ],
)
def test_directories_that_were_kept_are_handed_out_again(
    given: dict[str, str], reclaim_policy: str, adopts: bool
) -> None:
    """If data is kept, by the rule or by the policy Retain, the next claim of the name gets it by default."""
    assert parse(given).adopts(reclaim_policy) is adopts


def test_which_classes_limit_space() -> None:
    """Classes with `minFree` or `overcommit` limit the space."""
    assert not parse({}).limits_space
    assert parse({"minFree": "5%"}).limits_space
    assert parse({"overcommit": "2"}).limits_space
