"""One node: a virtual machine that boots the nodes' disk and discards its writes when it stops."""

from __future__ import annotations

import base64
import io
import secrets
import socket
import tarfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from testbed import vm
from testbed.processes import Server, ServerFailed
from tests.e2e.nodes.image import Image

MEMORY_MB = 2048
BOOT_S = 600.0
"""A boot takes less than a minute on an idle machine with two cores."""

_STARTED = b"the node's servers are started"


class ScriptFailed(Exception):
    """A script on a node did not exit with status 0; the text has its status and output."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wiring:
    """A machine's connections: UDP ports on the loopback for the cable to the other one, and a forwarded TCP port."""

    own_port: int
    other_port: int
    forwarded_port: int
    mac: str


class Machine:
    """A node by its name. `console` has its output since the last start.

    It needs 2 GiB at most and boots the same disk each time. Start it from a thread that lives at least as long as the
    machine (see testbed.processes.Server).
    """

    def __init__(self, name: str, image: Image, directory: Path, *, wiring: Wiring, files: Mapping[str, str]) -> None:
        """`files` are the node's own, by their paths on it."""
        self.name = name
        directory.mkdir(parents=True)
        self.console = directory / "console.log"
        self._shell = directory / "shell"
        self._files = directory / "files.tar"
        _write_archive(self._files, files)
        self._server = Server(
            name,
            self._command(image, wiring),
            log=self.console,
            ready=lambda: _STARTED in self.console.read_bytes(),
            # QEMU keeps the disk's writes there, in an unnamed file.
            environment={"TMPDIR": str(directory)},
        )

    @property
    def running(self) -> bool:
        """Whether it is powered on."""
        return self._server.pid is not None

    def start(self) -> None:
        """Boot it unless it runs, and wait until its servers are started. Raises ServerFailed."""
        self.power_on()
        self.wait_started()

    def power_on(self) -> None:
        """Boot it unless it runs."""
        if not self.running:
            self.console.write_bytes(b"")
            self._shell.unlink(missing_ok=True)
            self._server.start()

    def wait_started(self) -> None:
        """Wait until its servers are started. Raises ServerFailed."""
        self._server.wait_ready(BOOT_S)

    def kill(self) -> None:
        """Power it off."""
        self._server.kill()

    def run(self, script: str, *, timeout_s: float = 120.0) -> str:
        """Run a shell script as root on the node, and return both output streams together.

        Raises ScriptFailed unless it exits with status 0 in time, and ServerFailed if the node does not answer.
        """
        number = secrets.token_hex(8)
        request = f"\n{number} {timeout_s:.0f} {base64.b64encode(script.encode()).decode()}\n"
        try:
            answer = self._ask(number, request.encode(), time.monotonic() + timeout_s + 30.0)
        except OSError as exc:
            raise ServerFailed(f"{self.name} does not answer: {exc or 'timed out'}") from exc
        _, status, *output = answer.split(" ")
        text = base64.b64decode("".join(output)).decode(errors="replace")
        if status != "0":
            raise ScriptFailed(f"on {self.name}, status {status} of {script.strip()!r}:\n{text}")
        return text

    def _ask(self, number: str, request: bytes, deadline: float) -> str:
        """Send a request and return the line that answers it by its number."""
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(max(deadline - time.monotonic(), 1.0))
            line.connect(str(self._shell))
            line.sendall(request)
            seen = b""
            while True:
                line.settimeout(max(deadline - time.monotonic(), 0.1))
                received = line.recv(65536)
                if not received:
                    raise ConnectionError("it was powered off")
                *lines, seen = (seen + received).split(b"\n")
                # A line can be the late answer to an earlier request that timed out.
                for each in lines:
                    if each.startswith(number.encode()):
                        return each.decode()

    def _command(self, image: Image, wiring: Wiring) -> list[str | Path]:
        disk = "if=virtio,format=raw"
        cable = f"udp=127.0.0.1:{wiring.other_port},localaddr=127.0.0.1:{wiring.own_port}"
        return vm.emulate(
            image.kernel,
            image.initrd,
            memory_mb=MEMORY_MB,
            network=f",hostfwd=tcp:127.0.0.1:{wiring.forwarded_port}-:{wiring.forwarded_port}",
            parameters="root=/dev/vda rw init=/usr/local/sbin/node-init",
            devices=[
                *("-cpu", "max", "-device", "virtio-rng-pci"),
                *("-netdev", f"socket,id=cable,{cable}"),
                *("-device", f"virtio-net-pci,netdev=cable,mac={wiring.mac},romfile="),
                *("-chardev", f"socket,id=shell,path={self._shell},server=on,wait=off", "-serial", "chardev:shell"),
                # Writes go to a temporary file: several machines boot from one disk.
                *("-drive", f"file={image.disk},{disk},snapshot=on,cache=unsafe"),
                *("-drive", f"file={self._files},{disk},readonly=on"),
            ],
        )


def _write_archive(path: Path, files: Mapping[str, str]) -> None:
    with tarfile.open(path, "w") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(name.lstrip("/"))
            entry.size = len(text.encode())
            entry.mode = 0o600
            archive.addfile(entry, io.BytesIO(text.encode()))
