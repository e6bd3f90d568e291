"""telemetry.metrics: the series of exports and requests."""

from __future__ import annotations

from prometheus_client import generate_latest

from provisioner.telemetry.metrics import Metrics


def calls(metrics: Metrics) -> dict[str, float]:
    """The number of calls by export."""
    name = "nfs_provisioner_export_call_seconds_count"
    found = (sample for family in metrics.registry.collect() for sample in family.samples if sample.name == name)
    return {sample.labels["export"]: sample.value for sample in found}


def test_the_calls_of_a_forgotten_export() -> None:
    """An export that is forgotten has no series, and starts at zero when it is served again."""
    metrics = Metrics()
    metrics.admit_export("nas:/a")
    for _ in range(3):
        metrics.export_call("nas:/a", "mkdir", 0.1)
    assert calls(metrics) == {"nas:/a": 3}
    metrics.forget_export("nas:/a")
    metrics.export_call("nas:/a", "mkdir", 0.1)
    assert calls(metrics) == {}
    metrics.admit_export("nas:/a")
    metrics.export_call("nas:/a", "mkdir", 0.1)
    assert calls(metrics) == {"nas:/a": 1}


def test_requests_to_the_api_server() -> None:
    """Requests are counted by verb, resource and status."""
    metrics = Metrics()
    for code in (201, 201, 409):
        metrics.api_request("create", "persistentvolumes", code)
    labels = {"verb": "create", "resource": "persistentvolumes"}
    value = metrics.registry.get_sample_value
    assert value("nfs_provisioner_api_requests_total", {**labels, "code": "201"}) == 2
    assert value("nfs_provisioner_api_requests_total", {**labels, "code": "409"}) == 1


def test_space_of_an_export() -> None:
    """An export has series of bytes and of inodes, and none of inodes where the server does not count them."""
    metrics = Metrics()
    for name, inodes in (("nas:/a", 10), ("nas:/b", 0)):
        metrics.admit_export(name)
        metrics.export_state(name, up=True)
        assert metrics.registry.get_sample_value("nfs_provisioner_export_free_bytes", {"export": name}) is None
        metrics.export_space(name, size_bytes=100, free_bytes=50, files=inodes, files_free=inodes // 2)
        assert metrics.registry.get_sample_value("nfs_provisioner_export_free_bytes", {"export": name}) == 50
    value = metrics.registry.get_sample_value
    assert value("nfs_provisioner_export_files", {"export": "nas:/a"}) == 10
    assert value("nfs_provisioner_export_files_free", {"export": "nas:/a"}) == 5
    assert value("nfs_provisioner_export_files", {"export": "nas:/b"}) is None


def test_no_series_of_creation_times() -> None:
    """No counter or histogram has a second series that says when it was created."""
    metrics = Metrics()
    metrics.api_request("create", "persistentvolumes", 201)
    metrics.provisioned.labels("nfs", "").inc()
    assert b"_created" not in generate_latest(metrics.registry)


def test_each_help_text_stands_alone() -> None:
    """Grafana shows a metric's text without its neighbours: each is a sentence that refers to no other."""
    for family in Metrics().registry.collect():
        if family.name.startswith(("nfs_provisioner_", "controller_")):
            assert family.documentation.endswith(".")
            assert not set(family.documentation.split()) & {"them", "these", "those", "here"}, family.name
