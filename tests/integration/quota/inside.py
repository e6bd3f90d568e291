"""Runs in the virtual machine: prints one line per check, `ok NAME` or `failed NAME` with the traceback.

Each check of the agent runs it as an admin does, as a process on the file system that the kernel's NFS server exports,
and works as a tenant over a mount of that export.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from provisioner.core.quota import Answer, Heartbeat, decode_answer, decode_heartbeat, enforces, is_limit
from provisioner.core.records import Record, encode
from provisioner.quota import linux
from provisioner.quota.kernel import KernelDisk
from tests.contract.disk_cases import CASES, LocalDiskSite

MI = 1 << 20
SIZE = 8 * MI
AGENT = [sys.executable, "-m", "provisioner", "quota-agent", "--log-format", "json"]
PATIENCE_S = 180.0
"""Emulated processors are slow."""
FULL = (errno.ENOSPC, errno.EDQUOT)

Check = Callable[[Path], None]


class Export:
    """A directory with a ledger, on one of the file systems."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for part in ("pending", "volumes", "archives", "trash", "drafts", "clusters"):
            (root / ".provisioner" / part).mkdir(parents=True)
        (root / ".provisioner").chmod(0o700)
        (root / ".provisioner/export").symlink_to("id")

    def record(self, name: str, size: str, *, quota: str = "required", directory: str = "") -> None:
        """Write a record, as a provisioner does over NFS."""
        record = Record(
            directory=directory or name,
            namespace="shop",
            claim="data",
            claim_uid="",
            class_name="nfs",
            on_delete="archive",
            capacity=size,
            created="2026-11-28T08:00:00Z",
            quota=quota,  # type: ignore[arg-type]
        )
        draft = self.root / ".provisioner/drafts" / name
        draft.symlink_to(encode(record))
        draft.rename(self.root / ".provisioner/volumes" / name)

    def volume(self, name: str, size: str = "8Mi") -> Path:
        """Create a volume; return its directory."""
        self.record(name, size)
        directory = self.root / name
        directory.mkdir()
        directory.chmod(0o777)
        return directory

    def answer(self, name: str) -> Answer | None:
        """Return the agent's answer."""
        try:
            return decode_answer(os.readlink(self.root / ".provisioner/quota" / name))
        except FileNotFoundError:
            return None

    def heartbeat(self) -> Heartbeat:
        """Return the agent's heartbeat."""
        return decode_heartbeat(os.readlink(self.root / ".provisioner/agent"))

    def wait_for(self, name: str, size_bytes: int) -> float:
        """Wait until the answer says that a size is enforced; return how long it took."""
        began = time.monotonic()
        while not enforces(self.answer(name), size_bytes):
            assert time.monotonic() < began + PATIENCE_S, self.answer(name)
            time.sleep(0.002)
        return time.monotonic() - began


@contextmanager
def running(root: Path, *flags: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run the agent."""
    process = subprocess.Popen([*AGENT, "--root", str(root), *flags])
    try:
        began = time.monotonic()
        while not os.path.lexists(root / ".provisioner/agent"):
            assert process.poll() is None, process.returncode
            assert time.monotonic() < began + PATIENCE_S
            time.sleep(0.05)
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE_S)


@contextmanager
def mounted(path: Path, version: str) -> Iterator[Path]:
    """Mount a directory of this machine over NFS."""
    at = Path("/mnt", f"{path.name}-{version}")
    at.mkdir(exist_ok=True)
    options = f"vers={version},proto=tcp,port=2049"
    if version == "3":
        options += ",nolock,mountport=20048,mountproto=tcp"
    subprocess.run(["mount", "-t", "nfs", "-o", options, f"127.0.0.1:{path}", str(at)], check=True)
    try:
        yield at
    finally:
        subprocess.run(["umount", "-l", str(at)], check=True)


def once(root: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """Run the agent once."""
    return subprocess.run([*AGENT, "--root", str(root), "--once", *flags], text=True, capture_output=True, check=False)


def written(file: Path, size_bytes: int, *, uid: int) -> int:
    """Write a file as a user, without a cache; return how many bytes were accepted before it was full."""
    script = (
        "import os,sys,mmap\n"
        f"os.setgroups([]); os.setgid({uid}); os.setuid({uid})\n"
        f"f = os.open({str(file)!r}, os.O_WRONLY | os.O_CREAT | os.O_DIRECT, 0o666)\n"
        "block = mmap.mmap(-1, 65536); block.write(b'x' * 65536); done = 0\n"
        "try:\n"
        f"  while done < {size_bytes}: done += os.write(f, block)\n"
        "except OSError as e:\n"
        f"  assert e.errno in {FULL}, e\n"
        "print(done)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


# ---------------------------------------------------------------------------------------------------- checks


def a_writer_is_stopped(root: Path) -> None:
    """A writer is stopped at the capacity, as root (XFS) and not, and `df` on its mount shows the capacity."""
    export = Export(root)
    with running(root):
        for version in ("3", "4.2"):
            for uid in (1000, 0):
                name = f"v{version}-{uid}"
                directory = export.volume(name)
                export.wait_for(name, SIZE)
                with mounted(directory, version) as at:
                    space = os.statvfs(at)
                    assert space.f_blocks * space.f_frsize == SIZE, space
                    accepted = written(at / "file", 12 * MI, uid=uid)
                print(f"measured {root} {name}: {accepted} of {SIZE} bytes accepted")
                holds = uid != 0 or "ext4" not in str(root)
                if holds:
                    assert SIZE - MI <= accepted <= SIZE + MI, accepted


def a_raise_is_in_force(root: Path) -> None:
    """A raise under a running writer is in force soon, and never reported before."""
    export = Export(root)
    with running(root):
        directory = export.volume("v")
        export.wait_for("v", SIZE)
        with mounted(directory, "4.2") as at:
            written(at / "file", 12 * MI, uid=1000)
            export.record("v", "32Mi")
            took_s = export.wait_for("v", 32 * MI)
            assert is_limit(linux.usage_of(os.open(root, os.O_RDONLY), project(directory)).limit_bytes, 32 * MI)
            assert written(at / "more", 12 * MI, uid=1000) == 12 * MI
    print(f"measured {root}: a raise was in force after {took_s:.3f} s")
    assert took_s < 2.0


def a_claim_gets_its_answer(root: Path) -> None:
    """A record that a client writes over NFS gets its answer promptly, also if the directory comes after it."""
    export = Export(root)
    with running(root), mounted(root, "4.2") as at:
        remote = Export.__new__(Export)
        remote.root = at
        times_s = []
        for number in range(5):
            began = time.monotonic()
            remote.record(f"v{number}", "8Mi")
            (at / f"v{number}").mkdir()
            export.wait_for(f"v{number}", SIZE)
            times_s.append(time.monotonic() - began)
    print(f"measured {root}: from record to answer {', '.join(f'{each * 1000:.0f}' for each in times_s)} ms")
    assert max(times_s) < 30.0  # a lost event would wait for the next pass


def content_that_was_there_first(root: Path) -> None:
    """Content of an adopted volume counts, and usage is within 1 % of du."""
    export = Export(root)
    directory = export.volume("v", "64Mi")
    for number in range(30):
        (directory / f"{number}").mkdir()
        (directory / f"{number}/file").write_bytes(bytes(100_000))
    (directory / "link").symlink_to("0/file")
    os.mkfifo(directory / "fifo")
    os.sync()
    assert once(root).returncode == 0
    answer = export.answer("v")
    assert answer is not None
    du = int(subprocess.run(["du", "-sk", str(directory)], capture_output=True, check=True).stdout.split()[0]) * 1024
    assert abs(answer.used_bytes - du) <= du / 100, (answer, du)
    assert (answer.whole, answer.special in (0, 2)) == (True, True), answer
    assert project(directory / "7/file") == answer.project


def a_file_that_a_client_holds(root: Path) -> None:
    """A file with a write delegation is visited again, and the limit follows."""
    export = Export(root)
    directory = export.volume("v")
    with mounted(directory, "4.2") as at, (at / "held").open("wb") as file:
        file.write(b"x" * 1000)
        file.flush()
        with running(root):
            export.wait_for("v", SIZE)
    assert project(directory / "held") == project(directory)


def the_trash_keeps_its_id(root: Path) -> None:
    """A deleted volume keeps id and limit in the trash; after the purge both are free."""
    export = Export(root)
    directory = export.volume("v")
    (directory / "file").write_bytes(bytes(MI))
    assert once(root).returncode == 0
    number = project(directory)
    trash = root / ".provisioner/trash/v"
    directory.rename(trash)
    (root / ".provisioner/volumes/v").unlink()
    once(root)
    answer = export.answer("v")
    assert answer is not None
    assert (answer.reason, answer.project, answer.limit_bytes) == ("held", number, SIZE)
    shutil.rmtree(trash)
    os.sync()
    once(root)
    assert export.answer("v") is None
    assert linux.usage_of(os.open(root, os.O_RDONLY), number).is_free


def another_owner_s_ledger(root: Path) -> None:
    """The agent becomes the owner of the ledger, keeps three capabilities, and stays small."""
    export = Export(root)
    for path in (root / ".provisioner", *(root / ".provisioner").iterdir()):
        os.chown(path, 65534, 65534, follow_symlinks=False)
    directory = export.volume("v")
    os.chown(directory, 1000, 1000)
    directory.chmod(0o700)
    with running(root) as process:
        export.wait_for("v", SIZE)
        status = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        fields = dict(line.split(":\t", 1) for line in status if ":\t" in line)
        assert fields["Uid"].split() == ["65534"] * 4
        assert int(fields["CapEff"], 16) == int(fields["CapPrm"], 16) == 1 << 2 | 1 << 3 | 1 << 21
        resident_kb = int(fields["VmRSS"].split()[0])
        print(f"measured {root}: {resident_kb} kB resident")
        assert resident_kb < 40 * 1024
    assert os.lstat(root / ".provisioner/quota").st_uid == 65534


def missing_rights(root: Path) -> None:
    """Without a capability nothing changes, and the agent says which one it lacks."""
    export = Export(root)
    directory = export.volume("v")
    for capability in ("sys_admin", "fowner", "dac_read_search"):
        limited = ["setpriv", "--bounding-set", f"-{capability}", "--inh-caps", f"-{capability}"]
        done = subprocess.run([*limited, *AGENT, "--root", str(root), "--once"], text=True, capture_output=True)
        assert done.returncode == 1, (capability, done)
        assert f"CAP_{capability.upper()}" in done.stdout, (capability, done)
    assert project(directory) == 0
    assert not export.heartbeat().enforces


def two_agents(root: Path) -> None:
    """A second agent of the same export does nothing."""
    export = Export(root)
    with running(root):
        export.volume("v")
        export.wait_for("v", SIZE)
        done = once(root)
    assert done.returncode == 1
    assert "another quota agent" in done.stdout


def a_dry_run(root: Path) -> None:
    """A dry run says what it would do, and changes nothing."""
    export = Export(root)
    directory = export.volume("v")
    done = once(root, "--dry-run")
    assert "would set the limit to 8Mi" in done.stdout, done
    assert export.answer("v") is None
    assert project(directory) == 0


def inheritance_on_the_trash(root: Path) -> None:
    """A trash that passes a project on is reported, and a rename into it fails with EXDEV."""
    export = Export(root)
    directory = export.volume("v")
    trash = os.open(root / ".provisioner/trash", os.O_RDONLY)
    linux.set_project(trash, 4242, inherits=True)
    done = once(root)
    assert "chattr -P" in done.stdout, done
    code = 0
    try:
        directory.rename(root / ".provisioner/trash/v")
    except OSError as exc:
        code = exc.errno or 0
    assert code == errno.EXDEV
    linux.set_project(trash, 0, inherits=False)
    os.close(trash)


def many_volumes(root: Path) -> None:
    """The first pass over many volumes is fast enough, and later ones cost little."""
    count = 1000
    export = Export(root)
    for number in range(count):
        export.volume(f"v{number}")
    began = time.monotonic()
    assert once(root).returncode == 0
    first_s = time.monotonic() - began
    began = time.monotonic()
    assert once(root).returncode == 0
    print(f"measured {root}: {count} volumes: first run {first_s:.1f} s, second {time.monotonic() - began:.1f} s")


def project(path: Path) -> int:
    """Return the project of a file or directory."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return linux.project_of(descriptor).id
    finally:
        os.close(descriptor)


CHECKS: list[Check] = [
    a_writer_is_stopped,
    a_raise_is_in_force,
    a_claim_gets_its_answer,
    content_that_was_there_first,
    a_file_that_a_client_holds,
    the_trash_keeps_its_id,
    another_owner_s_ledger,
    missing_rights,
    two_agents,
    a_dry_run,
    inheritance_on_the_trash,
    many_volumes,
]


def _contract(case: Callable[[LocalDiskSite], None], root: Path) -> None:
    root.mkdir()
    case(LocalDiskSite(root, KernelDisk))


def main() -> None:
    """Run all checks on both file systems."""
    checks: list[tuple[str, Check]] = [(f"contract-{each.__name__}", partial(_contract, each)) for each in CASES]
    checks += [(each.__name__, each) for each in CHECKS]
    for name, check in checks:
        for filesystem in ("xfs", "ext4"):
            top = Path("/srv", filesystem)
            root = top / name
            began = time.monotonic()
            try:
                check(root)
                print(f"ok {filesystem} {name} {time.monotonic() - began:.1f} s", flush=True)
            except Exception:  # noqa: BLE001  each failure is reported, and the others run
                print(f"failed {filesystem} {name}\n{traceback.format_exc()}", flush=True)
            _clean(top, root)


def _clean(top: Path, root: Path) -> None:
    """Remove what a check has left, so that its projects are free."""
    shutil.rmtree(root, ignore_errors=True)
    os.sync()
    descriptor = os.open(top, os.O_RDONLY)
    for number, usage in list(linux.usages(descriptor)):
        if usage.limit_bytes:
            linux.set_limit(descriptor, number, 0)
    os.close(descriptor)


if __name__ == "__main__":
    main()
