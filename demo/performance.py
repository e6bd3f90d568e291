"""Puts the demonstration together: setup, daemon, story, measurements and cleanup."""

from __future__ import annotations

import asyncio
import os
import shutil
import statistics
import sys
import time
import urllib.request
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from demo.interrupts import Interrupts
from demo.objects import Object, Objects, open_objects
from demo.observer import VOLUMES, StoryFailed
from demo.scenario import Scenario
from demo.screen import Screen, count, duration
from demo.servers import PATH, SERVER, Daemon, Setup, set_up
from demo.story import Story, clear_away, left
from provisioner.core.errors import InvalidSettings
from provisioner.ports.cluster import ClusterError
from testbed.binaries import BinariesMissing
from testbed.processes import ServerFailed

_INTERRUPTED = 130
_CLASSES = "/apis/storage.k8s.io/v1/storageclasses"
_NAMESPACES = "/api/v1/namespaces"

Kept = Callable[[], None]
"""Called once the story is over and everything stays up."""


def perform(kubeconfig: str | None, interrupts: Interrupts, *, kept: Kept | None = None) -> int:
    """Play the story on a cluster, by default a new one, and return the exit status.

    The status is 0 if every promise was kept, 1 after printing the reason otherwise, and 130 after a signal. With
    `kept`, everything stays up after a successful story until a signal. Nothing stays behind in any case.
    """
    screen, began_s = Screen(), time.monotonic()
    failure = ""
    screen.title("nfs-provisioner: a demonstration")
    try:
        with set_up(kubeconfig, interrupts, screen) as setup:
            failure = _on(setup, interrupts, screen, began_s, kept)
    except KeyboardInterrupt:
        pass
    except (BinariesMissing, ServerFailed, StoryFailed, ClusterError, InvalidSettings) as exc:
        failure = str(exc)
    if interrupts.received:
        screen.say("\nInterrupted: all servers have stopped, and their files are removed.")
        return _INTERRUPTED
    if failure:
        screen.failed(f"the demonstration failed: {failure}")
        return 1
    return 0


def _on(setup: Setup, interrupts: Interrupts, screen: Screen, began_s: float, kept: Kept | None) -> str:
    """Play the story, and return what went wrong, or ""."""
    try:
        return asyncio.run(_play(setup, interrupts, screen, began_s, kept))
    except asyncio.CancelledError:
        return ""


async def _play(setup: Setup, interrupts: Interrupts, screen: Screen, began_s: float, kept: Kept | None) -> str:
    scenario = Scenario(suffix=setup.suffix, server=SERVER, path=PATH, mount_options=setup.mount_options)
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    async with AsyncExitStack() as stack:
        with interrupts.calling(lambda: loop.call_soon_threadsafe(task.cancel)):
            objects = await stack.enter_async_context(open_objects(setup.kubeconfig))
            await _make_objects(scenario, objects, setup, stack, screen)
            daemon = await _start_daemon(scenario, objects, setup, stack, screen)
            story = Story(objects, scenario, setup, screen)
            await story.play()
            screen.title("Measurements")
            screen.measures(await _measures(story, daemon, began_s))
            failure = _verdict(story, screen)
            if kept and not failure:
                _show_commands(setup, scenario, daemon, screen)
                kept()
                await asyncio.Event().wait()
        # Handle a late signal here, so that it does not interrupt the cleanup.
        await asyncio.sleep(0)
    return failure


def _verdict(story: Story, screen: Screen) -> str:
    """Print the verdict, and return what was not kept, or ""."""
    broken = [promise for promise in story.promises if not promise.kept]
    if broken:
        return f"{len(broken)} of {count(len(story.promises), 'promise')} not kept; see ✗ above"
    screen.say("")
    screen.done(f"all {len(story.promises)} promises kept")
    return ""


async def _make_objects(
    scenario: Scenario, objects: Objects, setup: Setup, stack: AsyncExitStack, screen: Screen
) -> None:
    """Create namespace and classes; in a user's cluster they are deleted at the end."""
    if not setup.is_own_cluster:
        stack.push_async_callback(_remove_objects, scenario, objects, screen)
    await objects.create(_NAMESPACES, {"metadata": {"name": scenario.namespace}})
    for storage_class in scenario.classes():
        await objects.create(_CLASSES, storage_class)


async def _remove_objects(scenario: Scenario, objects: Objects, screen: Screen) -> None:
    screen.say(f"\nDeleting the namespace {scenario.namespace}, the classes and the volumes of the demonstration.")
    for storage_class in scenario.classes():
        await objects.delete(f"{_CLASSES}/{_name(storage_class)}")
    for volume in await left(objects, scenario):
        await objects.delete(f"{VOLUMES}/{_name(volume)}")
    await _delete_namespace(objects, scenario.namespace)


async def _delete_namespace(objects: Objects, namespace: str) -> None:
    """Delete it and wait for at most a minute; the cluster finishes the deletion by itself."""
    await objects.delete(f"{_NAMESPACES}/{namespace}")
    for _ in range(120):
        if not await objects.exists(f"{_NAMESPACES}/{namespace}"):
            return
        await asyncio.sleep(0.5)


def _name(thing: Object) -> str:
    name: str = thing["metadata"]["name"]
    return name


async def _start_daemon(
    scenario: Scenario, objects: Objects, setup: Setup, stack: AsyncExitStack, screen: Screen
) -> Daemon:
    """Start the daemon and wait until it is ready.

    At the end the claims are deleted before the daemon stops, so that it reclaims their volumes.
    """
    daemon = Daemon(setup, provisioner=scenario.provisioner, lease_namespace=scenario.namespace, ready=_is_ready)
    stack.callback(daemon.stop)
    with screen.step(" ".join(("daemon: nfs-provisioner run", *setup.export_flags))) as progress:
        progress("starting the daemon")
        daemon.start()
        await asyncio.to_thread(daemon.wait_ready)
    if not setup.is_own_cluster:
        stack.push_async_callback(clear_away, objects, scenario)
    return daemon


def _is_ready(port: int) -> bool:
    try:
        _ask(port, "/readyz")
    except OSError:
        return False
    return True


def _ask(port: int, path: str) -> str:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://127.0.0.1:{port}{path}", timeout=2.0) as answer:
        body: bytes = answer.read()
    return body.decode()


async def _measures(story: Story, daemon: Daemon, began_s: float) -> list[tuple[str, str]]:
    """Return the durations that the watches saw, and the daemon's own metrics."""
    sights = story.observer.sights.values()
    text = await asyncio.to_thread(_ask, daemon.port, "/metrics")
    total: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            total[sample.name] = total.get(sample.name, 0.0) + sample.value
    provision, delete = "controller_persistentvolumeclaim_provision", "controller_persistentvolume_delete"
    return [
        ("claim created → volume created", _spread([s.to_volume_s for s in sights])),
        ("claim created → claim Bound", _spread([s.to_bound_s for s in sights])),
        ("claim deleted → volume deleted", _spread([s.to_reclaimed_s for s in sights])),
        ("provisioning, by the daemon's metrics", _mean(total, f"{provision}_duration_seconds")),
        ("reclaiming, by the daemon's metrics", _mean(total, f"{delete}_duration_seconds")),
        ("memory of the daemon", f"{total['process_resident_memory_bytes'] / 2**20:.0f} MiB resident"),
        (
            "API requests of the daemon",
            f"{total['nfs_provisioner_api_requests_total']:.0f}, watches and events included",
        ),
        ("duration of this demonstration", duration(time.monotonic() - began_s)),
    ]


def _spread(values_s: list[float | None]) -> str:
    known_s = [value for value in values_s if value is not None]
    median_s = statistics.median(known_s)
    return f"{duration(median_s)} (median of {len(known_s)}), at most {duration(max(known_s))}"


def _mean(total: dict[str, float], histogram: str) -> str:
    times = total[f"{histogram}_count"]
    return f"{total[f'{histogram}_sum'] / times * 1000:.1f} ms (mean of {times:.0f})"


def _show_commands(setup: Setup, scenario: Scenario, daemon: Daemon, screen: Screen) -> None:
    screen.title("The demonstration stays up")
    screen.code(f"export KUBECONFIG={setup.kubeconfig}")
    screen.code(f"kubectl get pvc,pv -n {scenario.namespace}")
    screen.code(f"ls -lR {setup.export_directory}")
    screen.code(f"curl http://127.0.0.1:{daemon.port}/metrics")
    screen.say("To use the commands of nfs-provisioner with this demonstration:")
    screen.code(f"export PROVISIONER_NAME={scenario.provisioner} POD_NAMESPACE={scenario.namespace}")
    for flag in setup.export_flags:
        screen.code(f"export NFS_EXPORTS={flag.removeprefix('--export=')}")
    for command in ("check", "volumes", "archives"):
        screen.code(f"{_program()} {command}")
    if setup.nfs_port is not None:
        screen.say(f"The export is {SERVER}:{PATH} at port {setup.nfs_port}, NFSv4. The daemon logs to {daemon.log}.")
    else:
        screen.say(f"The daemon logs to {daemon.log}.")
    screen.say("To stop it:")
    screen.code(stop_command())


def stop_command() -> str:
    """Return the command that stops the demonstration, as the user in this directory types it."""
    return f"{os.path.relpath(sys.executable)} -m demo --stop"


def _program() -> str:
    """Return how the user in this directory calls nfs-provisioner."""
    if shutil.which("nfs-provisioner"):
        return "nfs-provisioner"
    return os.path.relpath(Path(sys.executable).with_name("nfs-provisioner"))
