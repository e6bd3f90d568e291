"""Credential plugins of a kubeconfig: programs that print a token (client-go, plugin/pkg/client/auth/exec).

The library can run them too, but hides failures. Here each failure is one line, a plugin that does not end is killed
with its children, and its output cannot exhaust the memory.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import Struct

from provisioner.core.errors import InvalidSettings
from provisioner.kube import errors

LIMIT_S = 30.0
"""Time limit for a plugin: some ask a person to log in."""
_GROUP = "client.authentication.k8s.io/"
_OUTPUT_BYTES = 1 << 20
_INSTEAD = "or use a kubeconfig with a token or a client certificate"


class _Variable(Struct):
    name: str
    value: str = ""


class Plugin(Struct, rename="camel"):
    """The plugin entry of a kubeconfig."""

    command: str
    api_version: str
    args: list[str] | None = None
    env: list[_Variable] | None = None
    install_hint: str | None = None
    interactive_mode: str | None = None


class _Status(Struct, rename="camel"):
    token: str | None = None
    client_certificate_data: str | None = None
    client_key_data: str | None = None
    expiration_timestamp: str | None = None


class _Credential(Struct, rename="camel"):
    kind: str
    api_version: str
    status: _Status | None = None


@dataclass(frozen=True, slots=True)
class Credentials:
    """The output of a plugin: a token, or a certificate with its key, both PEM."""

    token: str
    certificate: str
    key: str
    expire: datetime | None


async def credentials(config: Mapping[str, Any], *, base: str, limit_s: float = LIMIT_S) -> Credentials:
    """Run the plugin of a kubeconfig in the directory `base`. Raises InvalidSettings with one line."""
    try:
        plugin = msgspec.convert(dict(config), Plugin)
    except msgspec.ValidationError as exc:
        raise InvalidSettings(f"the kubeconfig's credential plugin is not configured correctly: {exc}") from exc
    about = f"the kubeconfig's credential plugin {plugin.command}"
    if plugin.interactive_mode == "Always":
        raise InvalidSettings(f"{about} needs a terminal (interactiveMode Always): choose another mode, {_INSTEAD}")
    return _parsed(about, plugin, await _output(about, plugin, base, limit_s))


async def _output(about: str, plugin: Plugin, base: str, limit_s: float) -> bytes:
    """Run the plugin and return its output, if it succeeded."""
    command = _command(plugin, base)
    information = {"kind": "ExecCredential", "apiVersion": plugin.api_version, "spec": {"interactive": False}}
    environment = os.environ | {each.name: each.value for each in plugin.env or ()}
    environment["KUBERNETES_EXEC_INFO"] = msgspec.json.encode(information).decode()
    try:
        status, output, complaint = await _run([command, *(plugin.args or ())], environment, limit_s)
    except FileNotFoundError as exc:
        raise InvalidSettings(f"{about} {_absent(plugin, command)}") from exc
    except TimeoutError as exc:
        raise InvalidSettings(f"{about} did not end within {limit_s:g} s and was killed: run it manually") from exc
    except (OSError, ValueError) as exc:
        raise InvalidSettings(f"{about} cannot be run: {errors.reason(exc)}") from exc
    if status != 0:
        reason = f": {complaint}" if complaint else ""
        raise InvalidSettings(f"{about} ended with status {status}{reason}")
    return output


def _command(plugin: Plugin, base: str) -> str:
    """Return the path to run: a relative path starts at the kubeconfig, a bare name is searched in PATH."""
    return os.path.join(base, os.path.expanduser(plugin.command)) if os.sep in plugin.command else plugin.command


def _absent(plugin: Plugin, command: str) -> str:
    if os.path.exists(command):
        return "cannot be run: its interpreter is not installed"
    hint = f" ({errors.one_line(plugin.install_hint)})" if plugin.install_hint else ""
    return f"is not installed: install it{hint}, {_INSTEAD}"


def _parsed(about: str, plugin: Plugin, output: bytes) -> Credentials:
    try:
        credential = msgspec.json.decode(output, type=_Credential)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise InvalidSettings(f"{about} printed something other than an ExecCredential: run it manually") from exc
    if credential.kind != "ExecCredential" or not credential.api_version.startswith(_GROUP):
        raise InvalidSettings(f"{about} printed something other than an ExecCredential: run it manually")
    if credential.api_version != plugin.api_version:
        raise InvalidSettings(
            f"{about} uses {credential.api_version}, but the kubeconfig names {plugin.api_version}: change it there"
        )
    status = credential.status or _Status()
    certificate, key = status.client_certificate_data or "", status.client_key_data or ""
    if not status.token and not (certificate and key):
        raise InvalidSettings(f"{about} printed neither a token nor a client certificate with its key")
    return Credentials(status.token or "", certificate, key, _time(status.expiration_timestamp))


def _time(written: str | None) -> datetime | None:
    """Parse a time of RFC 3339 in any of its forms; None for any other text."""
    try:
        at = datetime.fromisoformat(written or "")
    except ValueError:
        return None
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)


class _Process(asyncio.SubprocessProtocol):
    """Collects the output of a process."""

    def __init__(self) -> None:
        self.printed = {1: bytearray(), 2: bytearray()}
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        self.printed[fd] += data
        if len(self.printed[fd]) > _OUTPUT_BYTES and not self.ended.done():
            self.ended.set_exception(ValueError(f"it prints more than {_OUTPUT_BYTES >> 20} MiB"))

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_result(None)


async def _run(command: Sequence[str], environment: Mapping[str, str], limit_s: float) -> tuple[int, bytes, str]:
    """Run a command; return its status, output and shortened complaint. Raises OSError, TimeoutError, ValueError."""
    transport, process = await asyncio.get_running_loop().subprocess_exec(
        _Process,
        *command,
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    completed = False
    try:
        async with asyncio.timeout(limit_s):
            await process.ended
        completed = True
    finally:
        if not completed:
            with suppress(ProcessLookupError):
                # The whole group: children can hold the output open.
                os.killpg(transport.get_pid(), signal.SIGKILL)
        transport.close()
    complaint = errors.one_line(process.printed[2].decode("utf-8", "replace"))
    return transport.get_returncode() or 0, bytes(process.printed[1]), complaint
