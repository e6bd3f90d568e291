"""`python -m tests.benchmarks.copies`: copies by the daemon's engine, beside `cp -a` on a mount of the kernel's client.

Server and kernel client are virtual machines: knfsd with XFS (reflink) and ext4. The engine runs on this machine, and
with --inside in the client's machine too, emulated like `cp`. No Kubernetes takes part.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from statistics import median

from testbed import vm
from testbed.vm import KernelClient, KernelServer
from tests.benchmarks import timed_copies
from tests.benchmarks.machine import machine
from tests.benchmarks.report import DIRECTORY
from tests.support.product import product

XFS = "/srv/xfs"
VERSIONS = ("3", "4.0", "4.1", "4.2")
PATH = DIRECTORY / "copies.json"
OPTIONS = "rw,async,no_root_squash,insecure"
_SMALL_BYTES = 8192
_DISK_BYTES = 8 << 30
_SCRIPT_S = 3600.0
_PLANT = """
head -c 1048576 /dev/urandom > /tmp/random
for root in {roots}; do
  mkdir -p $root/large $root/small
  number=0
  while [ $number -lt {mib} ]; do cat /tmp/random; number=$((number + 1)); done > $root/large/file
  number=0
  while [ $number -lt {files} ]; do
    [ $((number % 100)) = 0 ] && mkdir $root/small/$number && into=$root/small/$number
    head -c {bytes} /tmp/random > $into/$number
    number=$((number + 1))
  done
  sync
  mkdir $root/planted
done
"""
_COPY = """
export LD_LIBRARY_PATH=/gnu
seconds() { cut -d' ' -f1 /proc/uptime; }
echo "$RUNS" | while read export version options source; do
  mount -t nfs -o "$options" "$HOST:$export" /mnt || continue
  number=0
  while [ $number -lt $ROUNDS ]; do
    sync; echo 3 > /proc/sys/vm/drop_caches; sleep 1
    began=$(seconds)
    /gnu/cp -a /mnt/$source /mnt/cp-$number && sync
    echo "cp $export $version $source $began $(seconds)"
    rm -rf /mnt/cp-$number
    number=$((number + 1))
  done
  umount /mnt
  if [ -n "$INSIDE" ]; then
    export PYTHONPATH=/product
    echo "engine $export $version $source" $(
      LD_LIBRARY_PATH= /usr/bin/python3 -m tests.benchmarks.timed_copies $HOST $PORT $MOUNT $ROUNDS \
        $export $version $source 2>&1 | tail -1)
  fi
done
"""

Key = tuple[str, str, str]
"""Export, version and source."""


def main() -> int:
    """Measure, and print the table; return 1 if this machine cannot."""
    options = _parser().parse_args()
    reason = vm.missing() or ("" if shutil.which("cp") else "there is no cp")
    if reason:
        print(f"this machine cannot run a virtual machine: {reason}", file=sys.stderr)
        return 1
    plant = _PLANT.format(
        roots=options.exports.replace(",", " "), mib=options.mib, files=options.files, bytes=_SMALL_BYTES
    )
    server = KernelServer({XFS: OPTIONS, vm.EXT4: OPTIONS}, disk_bytes=_DISK_BYTES, ext4=True, beside=plant)
    with server:
        keys = [
            (export, version, source)
            for export in options.exports.split(",")
            for version in options.versions.split(",")
            for source in ("large", "small")
        ]
        ours, used_bytes = asyncio.run(_ours(server, keys, options))
        theirs, inside = _theirs(server, keys, options)
    figures = [
        {
            "export": export,
            "version": version,
            "source": source,
            "engine_s": ours[key],
            "cp_s": theirs.get(key, []),
            "inside_s": inside.get(key, []),
            "used_bytes": used_bytes[key],
        }
        for key in keys
        for export, version, source in [key]
    ]
    PATH.parent.mkdir(parents=True, exist_ok=True)
    PATH.write_text(json.dumps({"machine": machine(), "figures": figures}, indent=2) + "\n")
    print(_table(figures))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.copies", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="copies of each tree (default: 3)")
    parser.add_argument("--mib", type=int, default=1024, help="size of the large file (default: 1024)")
    parser.add_argument("--files", type=int, default=2000, help="number of small files (default: 2000)")
    parser.add_argument("--versions", default=",".join(VERSIONS), help="NFS versions, with commas between them")
    parser.add_argument("--exports", default=f"{XFS},{vm.EXT4}", help="exports, with commas between them")
    parser.add_argument("--inside", action="store_true", help="run the engine in the client's machine too")
    return parser


async def _ours(
    server: KernelServer, keys: list[Key], options: argparse.Namespace
) -> tuple[dict[Key, list[float]], dict[Key, int]]:
    """Time the engine on this machine, once the server has created the sources."""
    for export in dict.fromkeys(export for export, _, _ in keys):
        tree = timed_copies.opened("127.0.0.1", server.port, server.mount_port, export, "4.2")
        # A server cannot report it.
        while "planted" not in [entry.name for entry in await tree.list(())]:  # noqa: ASYNC110
            await asyncio.sleep(1)
        await tree.close()
    took_s: dict[Key, list[float]] = {}
    used_bytes: dict[Key, int] = {}
    for key in keys:
        export, version, source = key
        tree = timed_copies.opened("127.0.0.1", server.port, server.mount_port, export, version)
        await tree.root_id()
        took_s[key], used_bytes[key] = await timed_copies.timed(tree, source, options.rounds)
        await tree.close()
        print(*key, *(f"{each:.2f}" for each in took_s[key]), used_bytes[key], file=sys.stderr, flush=True)
    return took_s, used_bytes


def _theirs(
    server: KernelServer, keys: list[Key], options: argparse.Namespace
) -> tuple[dict[Key, list[float]], dict[Key, list[float]]]:
    """Time `cp -a` in a virtual machine, and with --inside the engine too."""
    runs = [f"{export} {version} {_options(server, version)} {source}" for export, version, source in keys]
    environment = {
        "RUNS": "\n".join(runs),
        "ROUNDS": str(options.rounds),
        "INSIDE": "yes" if options.inside else "",
        "PORT": str(server.port),
        "MOUNT": str(server.mount_port),
    }
    files = _gnu_cp() | (product("tests/benchmarks/timed_copies.py") if options.inside else {})
    ran = KernelClient().run(_COPY, environment, timeout_s=_SCRIPT_S, files=files, python=options.inside)
    print(ran.output, file=sys.stderr)
    cp_s: dict[Key, list[float]] = {}
    inside_s: dict[Key, list[float]] = {}
    for line in ran.output.splitlines():
        match line.split():
            case ["cp", export, version, source, began, ended]:
                cp_s.setdefault((export, version, source), []).append(float(ended) - float(began))
            case ["engine", export, version, source, *took_s, used] if used.lstrip("-").isdigit():
                inside_s[export, version, source] = [float(each) for each in took_s]
    return cp_s, inside_s


def _options(server: KernelServer, version: str) -> str:
    mount = f",nolock,mountport={server.mount_port},mountproto=tcp" if version == "3" else ""
    return f"vers={version},proto=tcp,port={server.port}{mount}"


def _gnu_cp() -> dict[str, bytes]:
    """Return this machine's cp and its libraries; that of busybox copies less, and not within the server."""
    program = Path(str(shutil.which("cp")))
    listing = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    places = [program, *(Path(place) for place in re.findall(r"=> (/\S+)", listing) if "libc.so" not in place)]
    return {f"gnu/{place.name}": place.read_bytes() for place in places}


def _table(figures: list[dict[str, object]]) -> str:
    """Return the medians as a table for the documentation."""
    lines = [
        "| export | NFS | tree | engine | `cp -a` | ratio | engine in the VM | space |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for each in figures:
        ours, theirs, inside = (_median(each[key]) for key in ("engine_s", "cp_s", "inside_s"))
        ratio = f"{theirs / ours:.2f}" if ours and theirs else "–"
        of_inside = f"{inside:.2f} s ({theirs / inside:.2f})" if inside and theirs else "–"
        words = (each["export"], each["version"], each["source"], f"{ours:.2f} s", f"{theirs:.2f} s", ratio, of_inside)
        lines.append("| " + " | ".join(map(str, words)) + f" | {int(str(each['used_bytes'])) >> 20} MiB |")
    return "\n".join(lines)


def _median(values: object) -> float:
    return median(values) if isinstance(values, list) and values else 0.0


if __name__ == "__main__":
    sys.exit(main())
