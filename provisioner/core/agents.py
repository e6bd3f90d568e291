"""What `check` reports of the quota agent of an export: whether it is alive, what it can do, and what it lacks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from provisioner.core import classes, growth
from provisioner.core.checks import Finding
from provisioner.core.errors import InvalidSettings
from provisioner.core.listing import age
from provisioner.core.objects import StorageClass
from provisioner.core.quota import Heartbeat, is_alive
from provisioner.core.records import Quota
from provisioner.core.scope import count


@dataclass(frozen=True, slots=True)
class Wish:
    """A StorageClass whose volumes have a quota."""

    class_name: str
    quota: Quota
    grows: bool
    """Whether its claims grow before their volumes are full."""


def wishes(of_export: Iterable[StorageClass]) -> list[Wish]:
    """Return those of the classes on an export that ask for a quota."""
    found = []
    for each in sorted(of_export, key=lambda each: each.name):
        try:
            parameters = classes.parameters_of(each)
        except InvalidSettings:
            continue
        if parameters.quota != "none":
            found.append(Wish(each.name, parameters.quota, grows=growth.rule_of(each) is not None))
    return found


def of_agent(
    export: str, heartbeat: Heartbeat | None, wanted: Sequence[Wish], *, asking: int, now: datetime
) -> list[Finding]:
    """Report the agent of an export; nothing if there is none, and neither a class nor a volume asks for it.

    `asking` is the number of volumes that ask for a quota, by their records. What `quota: required` cannot do without
    is a failure, since the claims of that class wait; anything else is a warning.
    """
    if heartbeat is None:
        return [_missing(export, wanted, asking)] if wanted or asking else []
    alive = is_alive(heartbeat, now)
    heard = f"{heartbeat.at}, {age(heartbeat.at, now) or 'an unknown time'} ago"
    started = f" since {heartbeat.since}" if heartbeat.since else ""
    state = f"alive{started}" if alive else f"silent since {heard}"
    result = f"{state}; version {heartbeat.version or 'unknown'}, on {heartbeat.filesystem or 'an unknown file system'}"
    if not alive:
        advice = "start it again: limits stay in force without it, and new volumes and expansions wait"
        return [_trouble(export, wanted, result, advice)]
    if not heartbeat.enforces:
        return [_trouble(export, wanted, f"{result}; it cannot set limits", heartbeat.lacks or "see its log")]
    limits = (
        f"{count(heartbeat.volumes, 'volume')} with a quota, {heartbeat.limited} in force, project ids {heartbeat.ids}"
    )
    well = Finding(
        kind="quota agent",
        name=export,
        ok=True,
        warning=bool(heartbeat.warns),
        result=f"{result}; {limits}; last heard at {heard}",
        advice=heartbeat.warns,
    )
    return [well, *_of_root(export, heartbeat, wanted), *_of_full_volumes(export, wanted)]


def _missing(export: str, wanted: Sequence[Wish], asking: int) -> Finding:
    advice = "run `nfs-provisioner quota-agent` on the server, as docs/operations/quota-agent.md says"
    of_volumes = [count(asking, "volume")] if asking else []
    askers = " and ".join([*of_volumes, *(f"StorageClass {wish.class_name}" for wish in wanted)])
    ask = "ask" if len(wanted) + min(asking, 2) > 1 else "asks"
    return _trouble(export, wanted, f"none has reported, and {askers} {ask} for a quota: no size is enforced", advice)


def _trouble(export: str, wanted: Sequence[Wish], result: str, advice: str) -> Finding:
    """Return a failure if claims of a class wait for the agent, else a warning."""
    waiting = any(wish.quota == "required" for wish in wanted)
    return Finding(kind="quota agent", name=export, ok=not waiting, warning=not waiting, result=result, advice=advice)


def _of_root(export: str, heartbeat: Heartbeat, wanted: Sequence[Wish]) -> list[Finding]:
    """Report that limits do not hold root: ext4 lets the kernel's NFS server write beyond them."""
    if heartbeat.filesystem != "ext4" or heartbeat.holds_root:
        return []
    result = (
        "the file system is ext4: behind the kernel's NFS server with no_root_squash, limits do not hold root in pods,"
        " and claims with quota: required wait"
    )
    advice = (
        "use XFS; or, if the export squashes root or its server is Ganesha, start the quota agent with --root-is-held"
    )
    return [_trouble(export, wanted, result, advice)]


def _of_full_volumes(export: str, wanted: Sequence[Wish]) -> list[Finding]:
    """Say what a full volume does to its neighbours, and which classes do nothing against it."""
    if not wanted:
        return []
    grow = [wish.class_name for wish in wanted if wish.grows]
    stay = [wish.class_name for wish in wanted if not wish.grows]
    result = (
        "behind the kernel's NFS server a full volume slows all clients of the server, and its writers can wait minutes"
        " for their error: act at 85 %"
    )
    if grow:
        result += f"; claims grow by themselves in StorageClass {', '.join(grow)}"
    if stay:
        result += f"; claims have to be expanded in StorageClass {', '.join(stay)}"
    return [Finding(kind="quota agent", name=export, ok=True, result=result)]
