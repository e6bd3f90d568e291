"""The metrics: the names of sig-storage-lib-external-provisioner, so that dashboards go on working, and our own."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from provisioner import __version__

_DURATIONS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15, 30, 60, 120, 300, 600)
_WAITS_S = (0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10, 60)
_CALLS_S = (0.001, 0.01, 0.1, 1, 10)
"""Few: there is a series for each call on each of perhaps hundreds of exports."""

Loop = Literal[
    "claims",
    "events",
    "exports",
    "instances",
    "leader",
    "lease",
    "listener",
    "purge",
    "reflector",
    "retention",
    "sweep",
    "takeover",
    "volumes",
]
"""The loops that run as long as the process or its leadership, by what they work on; `listener` is the cache's news."""


class Metrics:
    """All metrics of one process, in a registry of its own. Label values are chosen by admins, never by tenants."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._sampled: list[_Sampled] = []
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)

        claim, volume = "controller_persistentvolumeclaim_provision", "controller_persistentvolume_delete"
        self.provisioned = self._counter(f"{claim}_total", "Volumes provisioned.", "class", "source")
        self.provision_failed = self._counter(f"{claim}_failed_total", "Attempts that failed.", "class", "source")
        self.provision_s = self._histogram(
            f"{claim}_duration_seconds", "From claim seen to volume made.", _DURATIONS_S, "class", "source"
        )
        self.deleted = self._counter(f"{volume}_total", "Volumes reclaimed.", "class")
        self.delete_failed = self._counter(f"{volume}_failed_total", "Attempts to reclaim that failed.", "class")
        self.delete_s = self._histogram(f"{volume}_duration_seconds", "Time to reclaim.", _DURATIONS_S, "class")

        self.failures = self._counter(
            "nfs_provisioner_failures_total",
            "Attempts that failed, of `provision` and `delete`, by why.",
            "work",
            "reason",
        )
        self.leader = self._gauge("leader", "1 for the replica that acts.")
        self.queue_wait_s = self._histogram(
            "nfs_provisioner_queue_wait_seconds", "From ready to taken by a worker.", _WAITS_S, "queue"
        )
        self.export_call_s = self._histogram(
            "nfs_provisioner_export_call_seconds", "One call on an export.", _CALLS_S, "export", "call"
        )
        self._export_up = self._gauge("export_up", "1 while the export answers as it should.", "export")
        self._export_free = self._gauge("export_free_bytes", "Free space by statfs.", "export")
        self._export_size = self._gauge("export_size_bytes", "Size by statfs.", "export")
        self.trash_entries = self._gauge("trash_entries", "Directories in the trash.", "export")
        self.trash_oldest_s = self._gauge(
            "trash_oldest_seconds", "How long the oldest of them has been there, as of the last look.", "export"
        )
        self.trash_refused = self._gauge("trash_refused", "Those of them that could not be removed.", "export")
        self.archives = self._gauge("archives", "Archived directories at the export's root.", "export")
        self.orphans = self._gauge("orphans", "What belongs to no volume, and nothing will end.", "export")
        self.lacking = self._gauge(
            "volumes_lacking", "Volumes that a claim has, and that lack what is said.", "export", "lacks"
        )
        self.second_cluster = self._gauge(
            "second_cluster",
            "1 while nothing is deleted, for two clusters with one id are at work.",
            "export",
        )
        self.homeless = self._gauge("volumes_on_unknown_export", "Volumes of ours that lie on no known export.")
        self.purged = self._counter("nfs_provisioner_purged_entries_total", "Entries removed from trash.", "export")
        self._of_exports = (
            self.export_call_s,
            self._export_up,
            self._export_free,
            self._export_size,
            self.trash_entries,
            self.trash_oldest_s,
            self.trash_refused,
            self.archives,
            self.orphans,
            self.lacking,
            self.second_cluster,
            self.purged,
        )
        self._exports: set[str] = set()
        self.api_requests = self._counter(
            "nfs_provisioner_api_requests_total", "Calls of the API server.", "verb", "resource", "code"
        )
        self.watch_restarts = self._counter("nfs_provisioner_watch_restarts_total", "Watches begun.", "resource")
        self._unexpected = self._counter(
            "nfs_provisioner_unexpected_errors_total", "Errors that no code expected, by where.", "loop"
        )
        for loop in get_args(Loop):
            self._unexpected.labels(loop)  # a rate needs the zero before the first one
        Info("nfs_provisioner_build", "What runs here.", registry=self.registry).info({"version": __version__})

    def _counter(self, name: str, help: str, *labels: str) -> Counter:
        return Counter(name, help, labels, registry=self.registry)

    def _gauge(self, name: str, help: str, *labels: str) -> Gauge:
        return Gauge(f"nfs_provisioner_{name}", help, labels, registry=self.registry)

    def _histogram(self, name: str, help: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(name, help, labels, buckets=buckets, registry=self.registry)

    def unexpected(self, loop: Loop) -> None:
        """An error came up that no code expected."""
        self._unexpected.labels(loop).inc()

    def export_state(self, export: str, *, up: bool, size_bytes: int | None, free_bytes: int | None) -> None:
        """What the last probe of an export found; sizes are None while it never answered."""
        if export not in self._exports:
            return
        self._export_up.labels(export).set(up)
        if size_bytes is not None and free_bytes is not None:
            self._export_size.labels(export).set(size_bytes)
            self._export_free.labels(export).set(free_bytes)

    def admit_export(self, export: str) -> None:
        """From now on an export has series: something of an admin's names it, or it has a ledger.

        A volume alone makes none: anyone who can create one could have as many series as they like.
        """
        self._exports.add(export)

    def export_call(self, export: str, call: str, took_s: float) -> None:
        """A call on an export has ended."""
        if export in self._exports:
            self.export_call_s.labels(export, call).observe(took_s)

    def forget_export(self, export: str) -> None:
        """An export is looked after no longer: none of its series stays."""
        self._exports.discard(export)
        for metric in self._of_exports:
            metric.remove_by_labels({"export": export})

    def forget_sweep(self) -> None:
        """What is on the exports is looked after no longer: another replica tells of it from now on."""
        of_trash = (self.trash_entries, self.trash_oldest_s, self.trash_refused)
        for gauge in (*of_trash, self.archives, self.orphans, self.lacking, self.second_cluster):
            gauge.clear()

    def sample(self, name: str, help: str, labels: tuple[str, ...], read: Callable[[], Sample]) -> None:
        """A gauge whose values are read for each scrape, from what the process has in memory anyway."""
        sampled = _Sampled(f"nfs_provisioner_{name}", help, labels, read)
        self.registry.register(sampled)
        self._sampled.append(sampled)

    def take_samples(self) -> None:
        """Read all sampled gauges now, in the thread whose objects they look at; they are collected in any."""
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
