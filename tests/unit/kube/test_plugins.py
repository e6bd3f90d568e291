"""kube.plugins: every failure of a credential plugin is one line, and no process of it remains."""

from __future__ import annotations

import asyncio
import json
import stat
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from provisioner.core.errors import InvalidSettings
from provisioner.kube.plugins import credentials

V1 = "client.authentication.k8s.io/v1"


def credential(**status: Any) -> str:
    return json.dumps({"apiVersion": V1, "kind": "ExecCredential", "status": status})


def plugin(directory: Path, script: str, *, interpreter: str = "/bin/sh", **config: Any) -> dict[str, Any]:
    """A plugin that runs this script."""
    path = directory / "plugin"
    path.write_text(f"#!{interpreter}\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return {"apiVersion": V1, "command": str(path), **config}


async def refusal(config: dict[str, Any], *, base: str = "/", limit_s: float = 60.0) -> str:
    with pytest.raises(InvalidSettings) as caught:
        await credentials(config, base=base, limit_s=limit_s)
    text = str(caught.value)
    assert "\n" not in text
    assert "[Errno" not in text
    assert len(text) < 600
    return text


async def test_a_token(tmp_path: Path) -> None:
    """A plugin gets its arguments, variables and the request, and its token is used."""
    printed = credential(token="t-$1-$A", expirationTimestamp="2026-11-27T21:00:00.5+01:00").replace('"', '\\"')
    script = f'echo "$KUBERNETES_EXEC_INFO" > {tmp_path}/request; echo "{printed}"'
    config = plugin(tmp_path, script, args=["one"], env=[{"name": "A", "value": "two"}], provideClusterInfo=False)
    got = await credentials(config, base="/")
    assert got.token == "t-one-two"
    assert got.expire == datetime(2026, 11, 27, 20, 0, 0, 500_000, UTC)
    request = json.loads((tmp_path / "request").read_text())
    assert request == {"apiVersion": V1, "kind": "ExecCredential", "spec": {"interactive": False}}


@pytest.mark.parametrize("written", ["", "soon", "2026-11-27"])
async def test_a_certificate_and_an_odd_time(tmp_path: Path, written: str) -> None:
    """A certificate with its key replaces a token; an invalid expiry is no reason to refuse it."""
    printed = credential(clientCertificateData="C", clientKeyData="K", expirationTimestamp=written)
    got = await credentials(plugin(tmp_path, f"echo '{printed}'"), base="/")
    assert (got.token, got.certificate, got.key) == ("", "C", "K")
    assert got.expire is None or got.expire.tzinfo is not None


async def test_a_relative_path_is_one_from_the_kubeconfig(tmp_path: Path) -> None:
    """`./plugin` is relative to the kubeconfig, not to the working directory."""
    config = plugin(tmp_path, f"echo '{credential(token='t')}'") | {"command": "./plugin"}
    assert (await credentials(config, base=str(tmp_path))).token == "t"


async def test_a_missing_plugin(tmp_path: Path) -> None:
    """The error for a missing plugin has its name and its installHint."""
    text = await refusal({"apiVersion": V1, "command": "no-such-plugin", "installHint": "see\nhttps://example.com"})
    assert "credential plugin no-such-plugin is not installed: install it (see https://example.com), or" in text
    assert "interpreter" in await refusal(plugin(tmp_path, "", interpreter="/no/such/interpreter"))


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo no login >&2; echo twice >&2; exit 3", "ended with status 3: no login twice"),
        ("exit 1", "ended with status 1"),
        ("kill -9 $$", "ended with status -9"),
        ("echo garbage", "other than an ExecCredential"),
        ("true", "other than an ExecCredential"),
        ("printf '\\377\\376'", "other than an ExecCredential"),
        ("echo '[]'", "other than an ExecCredential"),
        ('echo \'{"kind": "Secret", "apiVersion": "v1"}\'', "other than an ExecCredential"),
        (f"echo '{credential()}'", "neither a token nor a client certificate"),
        (f"echo '{credential(token='')}'", "neither a token nor a client certificate"),
        (f"echo '{credential(clientCertificateData='C')}'", "neither a token nor a client certificate"),
        (f"echo '{credential(token='t')}' | sed s/v1/v1beta1/", "uses client.authentication.k8s.io/v1beta1"),
        ("yes", "more than 1 MiB"),
        ("yes >&2", "more than 1 MiB"),
    ],
)
async def test_a_plugin_that_fails(tmp_path: Path, script: str, message: str) -> None:
    """Each way to fail has its own line, which names the plugin."""
    config = plugin(tmp_path, script)
    text = await refusal(config)
    assert message in text
    assert config["command"] in text


@pytest.mark.parametrize(
    "config",
    [
        {"command": "p"},
        {"apiVersion": V1},
        {"apiVersion": V1, "command": "p", "args": "x"},
        {"apiVersion": V1, "command": "p", "env": [{"value": "x"}]},
        {"apiVersion": V1, "command": "p", "interactiveMode": "Always"},
        {"apiVersion": V1, "command": "p\0"},
        {"apiVersion": V1, "command": "/tmp"},
    ],
)
async def test_a_plugin_that_cannot_be_run(config: dict[str, Any]) -> None:
    """A wrong plugin entry in a kubeconfig is reported before anything runs."""
    assert "credential plugin" in await refusal(config)


def running(group: int) -> bool:
    """Return True if any process of a group exists that is not a zombie."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[2]) == group and fields[0] != "Z":
                return True
    return False


async def ended(group: int) -> bool:
    limit = time.monotonic() + 30.0
    while running(group) and time.monotonic() < limit:  # noqa: ASYNC110  # no process tells us of another's end
        await asyncio.sleep(0.05)
    return not running(group)


async def begun(file: Path) -> int:
    """The process group of a plugin that writes it to a file first."""
    while True:
        written = await asyncio.to_thread(lambda: file.read_text() if file.exists() else "")
        if written.strip():
            return int(written)
        await asyncio.sleep(0.02)


HANGS = "echo $$ > {0}/pid; sleep 600 & sleep 600"
HANGS_BY_ITS_CHILD = "echo $$ > {0}/pid; sleep 600 & exit 0"


@pytest.mark.parametrize("script", [HANGS, HANGS_BY_ITS_CHILD])
async def test_a_plugin_that_hangs_leaves_nothing_behind(tmp_path: Path, script: str) -> None:
    """After its time limit a plugin is killed with its children, also if only they hold its output open."""
    text = await refusal(plugin(tmp_path, script.format(tmp_path)), limit_s=1.0)
    assert "did not end within 1 s and was killed" in text
    assert await ended(int((tmp_path / "pid").read_text()))


async def test_a_cancelled_plugin(tmp_path: Path) -> None:
    """When the caller is cancelled, the plugin is killed with its children."""
    config = plugin(tmp_path, HANGS.format(tmp_path))
    waiting = asyncio.create_task(credentials(config, base="/"))
    group = await begun(tmp_path / "pid")
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await ended(group)
