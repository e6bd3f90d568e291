"""Metrics under the names that dashboards and alerts use."""

from __future__ import annotations

import pytest

from tests.support.storage import ServedStorage

NAMES = (
    "controller_persistentvolumeclaim_provision_total{",
    "controller_persistentvolumeclaim_provision_failed_total{",
    "controller_persistentvolumeclaim_provision_duration_seconds_bucket{",
    "controller_persistentvolume_delete_total{",
    "controller_persistentvolume_delete_duration_seconds_bucket{",
    "# TYPE controller_persistentvolume_delete_failed_total counter",
    'nfs_provisioner_failures_total{reason="UnknownParameter",work="provision"}',
    "nfs_provisioner_claims_pending{class=",
    ',reason="UnknownParameter"} 1.0',
    "nfs_provisioner_memory_limit_bytes ",
    "nfs_provisioner_leader 1.0",
    'nfs_provisioner_queue_depth{queue="claims"}',
    'nfs_provisioner_queue_wait_seconds_bucket{le="0.1",queue="volumes"}',
    "nfs_provisioner_volumes{",
    "nfs_provisioner_capacity_bytes{",
    "nfs_provisioner_export_up{",
    "nfs_provisioner_export_free_bytes{",
    "nfs_provisioner_export_size_bytes{",
    "nfs_provisioner_export_files{",
    "nfs_provisioner_export_files_free{",
    "nfs_provisioner_export_requested_bytes{",
    'call="make_directory",export=',
    "nfs_provisioner_trash_entries{",
    "nfs_provisioner_trash_oldest_seconds{",
    "nfs_provisioner_trash_refused{",
    "nfs_provisioner_purged_entries_total{",
    "nfs_provisioner_archives{",
    "nfs_provisioner_orphans{",
    'nfs_provisioner_api_requests_total{code="201",resource="persistentvolumes",verb="create"}',
    'nfs_provisioner_watch_restarts_total{resource="persistentvolumeclaims"}',
    "nfs_provisioner_build_info{",
)


@pytest.mark.timeout(120)
def test_names(served: ServedStorage) -> None:
    """After one volume's life every promised metric is exported under its name."""
    served.claim(served.own_class({"nonsense": "1"}), "refused")
    served.refusal("refused")
    served.volume({"onDelete": "archive"}, "kept")
    served.released(served.volume({"onDelete": "delete"}))

    def missing() -> list[str]:
        text = served.daemon.http("/metrics")
        return [name for name in NAMES if name not in text]

    served.eventually(lambda: not missing(), f"all metrics; missing at first: {missing()}")


@pytest.mark.timeout(120)
def test_volumes_are_counted(served: ServedStorage) -> None:
    """Volumes and their capacity are counted per class until they are gone."""
    name = served.own_class({"onDelete": "delete"})
    served.claim(name, size="3Mi")
    volume = served.bound()
    counted = f'nfs_provisioner_volumes{{class="{name}",phase="Bound"}} 1.0'
    # The text can be a second old.
    served.eventually(lambda: counted in served.daemon.http("/metrics"), "it is counted")
    assert f'nfs_provisioner_capacity_bytes{{class="{name}"}} 3.145728e+06' in served.daemon.http("/metrics")
    served.released(volume)
    served.eventually(lambda: f'class="{name}",phase' not in served.daemon.http("/metrics"), "it is counted no more")
