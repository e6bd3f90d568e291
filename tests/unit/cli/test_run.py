"""cli: flags, environment variables, and unusable settings."""

from __future__ import annotations

import sys

import click
import pytest

from provisioner.cli import options
from provisioner.cli.entry import main
from provisioner.cli.run import run
from provisioner.core.errors import InvalidSettings
from provisioner.core.leases import LeaseTimes
from provisioner.core.locations import Location
from provisioner.settings import ExportSetting, Settings

NAS = Location("nas", "/exports")


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the settings of this machine from the environment."""
    for parameter in run.params:
        if isinstance(parameter.envvar, str):
            monkeypatch.delenv(parameter.envvar, raising=False)


def settings(*flags: str) -> Settings:
    """Return the settings that `run` would use."""
    given = dict(run.make_context("run", list(flags)).params)
    del given["log_format"], given["log_level"]
    return options.settings(**given)


def test_defaults() -> None:
    """Without flags, the settings are those of the documentation."""
    found = settings("--lease-namespace", "storage")
    assert found == Settings(
        provisioner="cluster.local/nfs-provisioner",
        exports=(),
        default_export=None,
        require_mount=False,
        nfs_uid=0,
        nfs_gid=0,
        nfs_timeout_s=10.0,
        kubeconfig=None,
        leader_election=True,
        lease_namespace="storage",
        lease_times=LeaseTimes(duration_s=15.0, renew_deadline_s=10.0, retry_period_s=2.0),
        listen_host="0.0.0.0",
        listen_port=8080,
        workers=64,
        parallel_copies=4,
        copy_workers=32,
        volume_metrics=False,
    )


TABLE = [
    ("--provisioner-name", "PROVISIONER_NAME", "example.com/nfs", "provisioner", "example.com/nfs"),
    ("--export", "NFS_EXPORTS", "nas:/exports=/mnt", "exports", (ExportSetting(location=NAS, directory="/mnt"),)),
    ("--nfs-uid", "NFS_UID", "1000", "nfs_uid", 1000),
    ("--nfs-gid", "NFS_GID", "1000", "nfs_gid", 1000),
    ("--nfs-timeout", "NFS_TIMEOUT", "1m30s", "nfs_timeout_s", 90.0),
    ("--kubeconfig", "KUBECONFIG", "/k", "kubeconfig", "/k"),
    ("--lease-namespace", "POD_NAMESPACE", "storage", "lease_namespace", "storage"),
    ("--lease-duration", "LEASE_DURATION", "30s", "lease_times", LeaseTimes(duration_s=30.0)),
    ("--renew-deadline", "RENEW_DEADLINE", "5", "lease_times", LeaseTimes(renew_deadline_s=5.0)),
    ("--retry-period", "RETRY_PERIOD", "500ms", "lease_times", LeaseTimes(retry_period_s=0.5)),
    ("--listen", "LISTEN", "[::1]:9", "listen_host", "::1"),
    ("--workers", "WORKERS", "8", "workers", 8),
    ("--parallel-copies", "PARALLEL_COPIES", "2", "parallel_copies", 2),
    ("--copy-workers", "COPY_WORKERS", "16", "copy_workers", 16),
]


@pytest.mark.parametrize(("flag", "variable", "value", "field", "expected"), TABLE, ids=[row[0] for row in TABLE])
def test_flags_and_environment(
    monkeypatch: pytest.MonkeyPatch, flag: str, variable: str, value: str, field: str, expected: object
) -> None:
    """Each flag has its environment variable, both mean the same, and an empty variable means nothing."""
    assert getattr(settings(flag, value), field) == expected
    monkeypatch.setenv(variable, value)
    assert getattr(settings(), field) == expected
    monkeypatch.setenv(variable, "")
    assert settings() == settings_without(monkeypatch, variable)


def settings_without(monkeypatch: pytest.MonkeyPatch, variable: str) -> Settings:
    monkeypatch.delenv(variable)
    return settings()


@pytest.mark.parametrize(
    ("flag", "variable", "field"),
    [
        ("require-mount", "REQUIRE_MOUNT", "require_mount"),
        ("leader-election", "ENABLE_LEADER_ELECTION", "leader_election"),
        ("volume-metrics", "VOLUME_METRICS", "volume_metrics"),
        ("snapshots", "SNAPSHOTS", "snapshots"),
    ],
)
def test_switches(monkeypatch: pytest.MonkeyPatch, flag: str, variable: str, field: str) -> None:
    """Each switch has a flag for on and one for off, and its environment variable."""
    assert getattr(settings(f"--{flag}"), field)
    assert not getattr(settings(f"--no-{flag}"), field)
    for value in ("true", "false"):
        monkeypatch.setenv(variable, value)
        assert getattr(settings(), field) == (value == "true")


def test_several_exports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several exports come from repeated flags or from one variable; none of them is the default then."""
    expected = (Location("a", "/x"), Location("b", "/y"))
    monkeypatch.setenv("NFS_EXPORTS", "a:/x b:/y")
    for found in (settings(), settings("--export", "a:/x", "--export", "b:/y")):
        assert tuple(export.location for export in found.exports) == expected
        assert found.default_export is None


def test_a_single_export_is_the_default() -> None:
    """A single export is the default for classes that name none."""
    assert settings("--export", "nas:/exports").default_export == NAS


def test_environment_of_nfs_subdir(monkeypatch: pytest.MonkeyPatch) -> None:
    """NFS_SERVER and NFS_PATH name the default export, in addition to the exports of flags."""
    monkeypatch.setenv("NFS_SERVER", "nas")
    monkeypatch.setenv("NFS_PATH", "/exports")
    found = settings("--export", "other:/x")
    assert found.default_export == NAS
    assert [export.location for export in found.exports] == [NAS, Location("other", "/x")]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "--provisioner-name", "kubernetes.io/nfs"], "choose another"),
        (["run", "--export", "nas"], "--export nas"),
        (["run", "--export", "nas:/x=mnt"], "absolute path"),
        (["run", "--nfs-server", "nas"], "NFS_PATH"),
        (["run", "--listen", "8080"], "--listen"),
        (["run", "--lease-duration", "5s"], "--lease-duration"),
        (["run", "--nfs-timeout", "soon"], "--nfs-timeout"),
        (["run", "--workers", "0"], "--workers"),
        (["run", "--parallel-copies", "0"], "--parallel-copies"),
        (["run", "--copy-workers", "129"], "--copy-workers"),
        (["run", "--nfs-uid", "-1"], "--nfs-uid"),
        (["run", "--log-level", "loud"], "--log-level"),
        (["run", "--no-such-flag"], "--no-such-flag"),
        (["run", "extra"], "extra"),
        (["no-such-command"], "no-such-command"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_unusable_settings(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    """Unusable settings end with status 2 and one line that names what to change."""
    monkeypatch.setattr(sys, "argv", ["nfs-provisioner", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    printed = capsys.readouterr()
    assert ended.value.code == 2
    assert printed.out == ""
    assert printed.err.startswith("nfs-provisioner: ")
    assert printed.err.count("\n") == 1
    assert words in printed.err


def test_timeout_of_zero() -> None:
    """A time limit of zero, with which no call could succeed, is refused."""
    with pytest.raises((InvalidSettings, click.UsageError), match="nfs-timeout"):
        settings("--nfs-timeout", "0")


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["--version"], ["run", "--help"]], ids=" ".join)
def test_help(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    """Help and version are printed to the standard output, with status 0."""
    monkeypatch.setattr(sys, "argv", ["nfs-provisioner", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert "nfs-provisioner" in capsys.readouterr().out
