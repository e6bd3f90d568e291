"""The metrics: names of sig-storage-lib-external-provisioner, for existing dashboards, and own ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Literal, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, disable_created_metrics
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from provisioner import __version__

_DURATIONS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15, 30, 60, 120, 300, 600)
_WAITS_S = (0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10, 60)
_CALLS_S = (0.001, 0.01, 0.1, 1, 10)
"""Few buckets: there is a series per call and export, and there can be hundreds of exports."""
_SERIES = 1024

Loop = Literal[
    "claims",
    "copies",
    "events",
    "exports",
    "instances",
    "leader",
    "lease",
    "listener",
    "purge",
    "reflector",
    "retention",
    "snapshots",
    "sweep",
    "takeover",
    "usage",
    "volumes",
]
"""Loops that run as long as the process or its leadership, by subject; `listener` handles changes of the cache."""


class Metrics:
    """All metrics of one process, in a separate registry.

    Admins choose label values, and tenants never do, except for the names of claims in the metrics of single volumes
    (`--volume-metrics`).
    """

    def __init__(self) -> None:
        # No series ending in _created, a third of all: Prometheus does without them.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self._sampled: list[_Sampled] = []
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)

        claim, volume = "controller_persistentvolumeclaim_provision", "controller_persistentvolume_delete"
        self.provisioned = self._counter(f"{claim}_total", "PersistentVolumes provisioned.", "class", "source")
        self.provision_failed = self._counter(
            f"{claim}_failed_total", "Failed attempts to provision a PersistentVolume.", "class", "source"
        )
        self.provision_s = self._histogram(
            f"{claim}_duration_seconds",
            "Seconds from seeing a claim to its PersistentVolume.",
            _DURATIONS_S,
            "class",
            "source",
        )
        self.deleted = self._counter(f"{volume}_total", "PersistentVolumes reclaimed.", "class")
        self.delete_failed = self._counter(
            f"{volume}_failed_total", "Failed attempts to reclaim a PersistentVolume.", "class"
        )
        self.delete_s = self._histogram(
            f"{volume}_duration_seconds", "Seconds to reclaim a PersistentVolume.", _DURATIONS_S, "class"
        )

        self.failures = self._counter(
            "nfs_provisioner_failures_total",
            "Failed attempts to provision, delete, resize or take over a PersistentVolume, by reason.",
            "work",
            "reason",
        )
        self.leader = self._gauge("leader", "1 if this replica is the leader, else 0.")
        self.memory_limit = self._gauge(
            "memory_limit_bytes", "Memory that the container of this replica can use, in bytes; 0 without a limit."
        )
        self.queue_wait_s = self._histogram(
            "nfs_provisioner_queue_wait_seconds", "Seconds that a key waits in a queue for a worker.", _WAITS_S, "queue"
        )
        export_call_s = self._histogram(
            "nfs_provisioner_export_call_seconds", "Seconds per call on an export.", _CALLS_S, "export", "call"
        )
        # labels() takes longer than to count: series that are written several times per volume are kept.
        self._call_s = lru_cache(maxsize=_SERIES)(export_call_s.labels)
        self._export_up = self._gauge("export_up", "1 while the export responds as expected, else 0.", "export")
        self._export_free = self._gauge(
            "export_free_bytes", "Free space of the export in bytes, as statfs reports it.", "export"
        )
        self._export_size = self._gauge(
            "export_size_bytes", "Size of the export in bytes, as statfs reports it.", "export"
        )
        self._export_files = self._gauge(
            "export_files", "Files and directories that the export can hold in all (inodes), by statfs.", "export"
        )
        self._export_files_free = self._gauge(
            "export_files_free", "Files and directories that the export can still hold (inodes), by statfs.", "export"
        )
        self.export_requested = self._gauge(
            "export_requested_bytes", "Sum of the sizes that the volumes on the export request, in bytes.", "export"
        )
        self.trash_entries = self._gauge(
            "trash_entries", "Deleted directories in the trash of the export that are not removed yet.", "export"
        )
        self.trash_oldest_s = self._gauge(
            "trash_oldest_seconds",
            "Seconds that the oldest directory has been in the trash of the export, at the last look.",
            "export",
        )
        self.trash_refused = self._gauge(
            "trash_refused", "Directories in the trash of the export that cannot be removed.", "export"
        )
        self.archives = self._gauge("archives", "Archived directories at the root of the export.", "export")
        self.orphans = self._gauge(
            "orphans",
            "Directories and records on the export that belong to no PersistentVolume and are not cleaned up.",
            "export",
        )
        self.lacking = self._gauge(
            "volumes_lacking", "PersistentVolumes in use that lack their directory or their record.", "export", "lacks"
        )
        self.second_cluster = self._gauge(
            "second_cluster",
            "1 while nothing on the export is deleted, because two clusters with the same id use it, else 0.",
            "export",
        )
        self.unknown_export_volumes = self._gauge(
            "volumes_on_unknown_export", "PersistentVolumes of this provisioner on exports that nothing names."
        )
        self.purged = self._counter(
            "nfs_provisioner_purged_entries_total",
            "Files and directories removed from the trash of the export.",
            "export",
        )
        self.copies = self._gauge("copies", "Copies that run, or wait to run, for volumes on the export.", "export")
        self.copied = self._counter(
            "nfs_provisioner_copied_bytes_total", "Bytes of files copied for volumes on the export.", "export"
        )
        self._of_exports = (
            export_call_s,
            self._export_up,
            self._export_free,
            self._export_size,
            self._export_files,
            self._export_files_free,
            self.export_requested,
            self.trash_entries,
            self.trash_oldest_s,
            self.trash_refused,
            self.archives,
            self.orphans,
            self.lacking,
            self.second_cluster,
            self.purged,
            self.copies,
            self.copied,
        )
        self._exports: set[str] = set()
        api_requests = self._counter(
            "nfs_provisioner_api_requests_total",
            "Requests to the API server, by HTTP status; 0 without an answer.",
            "verb",
            "resource",
            "code",
        )
        self._request = lru_cache(maxsize=_SERIES)(api_requests.labels)
        self.watch_restarts = self._counter(
            "nfs_provisioner_watch_restarts_total", "Watches started on the API server.", "resource"
        )
        self._unexpected = self._counter(
            "nfs_provisioner_unexpected_errors_total", "Unexpected errors, by the loop that caught them.", "loop"
        )
        for loop in get_args(Loop):
            self._unexpected.labels(loop)  # rate() needs a zero before the first error
        Info("nfs_provisioner_build", "The version of nfs-provisioner.", registry=self.registry).info(
            {"version": __version__}
        )

    def _counter(self, name: str, help: str, *labels: str) -> Counter:
        return Counter(name, help, labels, registry=self.registry)

    def _gauge(self, name: str, help: str, *labels: str) -> Gauge:
        return Gauge(f"nfs_provisioner_{name}", help, labels, registry=self.registry)

    def _histogram(self, name: str, help: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(name, help, labels, buckets=buckets, registry=self.registry)

    def unexpected(self, loop: Loop) -> None:
        """Count an unexpected error."""
        self._unexpected.labels(loop).inc()

    def export_state(self, export: str, *, up: bool) -> None:
        """Set whether the last probe of an export succeeded."""
        if export in self._exports:
            self._export_up.labels(export).set(up)

    def export_space(self, export: str, *, size_bytes: int, free_bytes: int, files: int, files_free: int) -> None:
        """Set what statfs said of an export. `files` is 0 for a server that does not count inodes."""
        if export not in self._exports:
            return
        self._export_size.labels(export).set(size_bytes)
        self._export_free.labels(export).set(free_bytes)
        if files:
            self._export_files.labels(export).set(files)
            self._export_files_free.labels(export).set(files_free)

    def admit_export(self, export: str) -> None:
        """Start series for an export that the settings or a class name, or that has a ledger.

        A PersistentVolume alone starts no series: its creator could otherwise add any number of them.
        """
        self._exports.add(export)

    def export_call(self, export: str, call: str, took_s: float) -> None:
        """Record a call on an export."""
        if export in self._exports:
            self._call_s(export, call).observe(took_s)

    def api_request(self, verb: str, resource: str, code: int) -> None:
        """Count a request to the API server by its HTTP status; 0 stands for no answer."""
        self._request(verb, resource, code).inc()

    def forget_export(self, export: str) -> None:
        """Remove all series of an export that is no longer served."""
        self._exports.discard(export)
        self._call_s.cache_clear()
        for metric in self._of_exports:
            metric.remove_by_labels({"export": export})

    def forget_sweep(self) -> None:
        """Remove the series that only the leader reports: another replica reports them from now on."""
        of_trash = (self.trash_entries, self.trash_oldest_s, self.trash_refused)
        of_ledger = (self.export_requested, self.archives, self.orphans, self.lacking, self.second_cluster, self.copies)
        for gauge in (*of_trash, *of_ledger):
            gauge.clear()

    def sample(self, name: str, help: str, labels: tuple[str, ...], read: Callable[[], Sample]) -> None:
        """Add a gauge whose values are read from memory at each scrape."""
        sampled = _Sampled(f"nfs_provisioner_{name}", help, labels, read)
        self.registry.register(sampled)
        self._sampled.append(sampled)

    def take_samples(self) -> None:
        """Read all sampled gauges now, in the thread that owns their objects; another thread can collect them later."""
        for sampled in self._sampled:
            sampled.take()


Sample = dict[tuple[str, ...], float]
"""Values by label values."""


class _Sampled(Collector):
    def __init__(self, name: str, help: str, labels: tuple[str, ...], read: Callable[[], Sample]) -> None:
        self._name, self._help, self._labels, self._read = name, help, labels, read
        self._taken: Sample | None = None

    def take(self) -> None:
        self._taken = self._read()

    def collect(self) -> Iterable[Metric]:
        family = GaugeMetricFamily(self._name, self._help, labels=self._labels)
        for values, value in (self._read() if self._taken is None else self._taken).items():
            family.add_metric(values, value)
        yield family

    def describe(self) -> Iterable[Metric]:
        yield GaugeMetricFamily(self._name, self._help, labels=self._labels)
