"""The specs of Kubernetes' storage tests: which apply, which are left out and why, and what became of each."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal
from xml.etree import ElementTree

Status = Literal["passed", "failed", "skipped"]

_DRIVER = re.compile(r".*\[Driver: [^]]*\] ")

LEFT_OUT = (
    (r"\[Disruptive\]", "restarts the kubelet over SSH: the nodes of these tests have no SSH server"),
    (r"\[Feature:VolumeAttributesClass\]", "modifies volumes by VolumeAttributesClass: only a CSI driver can"),
    (r"\[Feature:SELinux", "needs nodes with SELinux"),
    (
        r" snapshottable| provisioning should provision storage with pvc data source",
        "reads `spec.csi` of the source's PersistentVolume, and fails without it",
    ),
    (
        r" read-write-once-pod should block a second pod",
        "names the node itself, past the scheduler; the kubelet tells pods apart only for volumes that it attaches",
    ),
    (r"\[Feature:VolumeGroupSnapshot", "takes snapshots of a group of volumes at one time: only a CSI driver can"),
    # The specs of VolumeSourceXFS use XFS only for drivers that declare it.
    (r"\[Feature:(?!VolumeSnapshotDataSource|VolumeSourceXFS)", "needs a feature that is off by default"),
)
"""Patterns of specs that do not apply, each with the reason; the first match decides."""

SKIPPED = (
    ("any volume data source", "the suite runs it only for drivers that are not in-tree"),
    ("restoring snapshot to larger size", "compares sizes of file systems: a directory has no file system of its own"),
    ("volume and restored snapshot", "the suite runs it for no driver: its test pattern names no kind of snapshot"),
    ("(immediate-binding)] ephemeral should support multiple", "the suite runs it with late binding only"),
    ("different volume mode", "pairs a block device with a directory: a directory is no block device"),
)
"""Specs that the suite itself skips for every driver of in-tree volumes of files, and why."""

AT_FULL_SPEED = ("volume-lifecycle-performance should",)
"""Specs without a pod whose result is a speed: they run beside a daemon that is not in an emulated machine."""

SELECTION = (
    "(block volmode)] volumeMode should fail in binding dynamic provisioned PV to PVC",
    "provisioning should provision storage with mount options",
    "(late-binding)] ephemeral should create read-only inline ephemeral volume",
    "(immediate-binding)] ephemeral should create read/write inline ephemeral volume",
    "volumeMode should not mount / map unused volumes in a pod",
    "subPath should support existing directory",
    "subPath should support file as subpath",
    "subPath should support readOnly directory specified in the volumeMount",
    "volume-expand Verify if offline PVC expansion works",
    "volume-expand should not allow expansion of pvcs without AllowVolumeExpansion",
    "volumes should allow exec of files on the volume",
    "volumes should store data",
)
"""Fast specs, at least one of each part of the suite that needs a pod."""


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a spec; `why` is the reason of a skip, or the text of a failure."""

    name: str
    status: Status
    seconds: float
    why: str = ""


def short(name: str) -> str:
    """Return the name of a spec without the words that all specs of the driver share."""
    return _DRIVER.sub("", name).removesuffix(" ")


def reason(name: str) -> str:
    """Return why a spec does not apply, or ""."""
    return next((why for pattern, why in LEFT_OUT if re.search(pattern, name)), "")


def known_skip(name: str) -> str:
    """Return why the suite itself skips a spec for this driver, or ""."""
    return next((why for part, why in SKIPPED if part in name), "")


def serial(name: str) -> bool:
    """Whether a spec must run alone."""
    return "[Serial]" in name


def at_full_speed(name: str) -> bool:
    """Whether the spec runs without nodes, beside a daemon at the speed of this machine."""
    return any(part in name for part in AT_FULL_SPEED)


def selected(names: Iterable[str]) -> Iterator[str]:
    """Yield the specs of the selection."""
    return (name for name in names if any(part in name for part in SELECTION))


def read(report: bytes) -> Iterator[Result]:
    """Yield the results of specs in a JUnit report of the suite.

    A spec that was not chosen counts as skipped without a reason.
    """
    for case in ElementTree.fromstring(report).iter("testcase"):
        kind, _, name = case.attrib["name"].partition("] ")
        if kind == "[It":
            yield _result(case, name)


def _result(case: ElementTree.Element, name: str) -> Result:
    seconds = float(case.attrib.get("time") or 0)
    skipped, failure = case.find("skipped"), case.find("failure")
    if failure is None:
        failure = case.find("error")
    if failure is not None:
        return Result(name, "failed", seconds, (failure.text or failure.attrib.get("message") or "").strip())
    if skipped is not None:
        why = skipped.attrib.get("message", "").removeprefix("skipped").removeprefix(" - ")
        return Result(name, "skipped", seconds, why.strip())
    return Result(name, "passed", seconds)


def summary(results: Iterable[Result]) -> str:
    """Return how many specs passed, failed and were skipped."""
    found = [result.status for result in results]
    return ", ".join(f"{found.count(status)} {status}" for status in ("passed", "failed", "skipped"))
