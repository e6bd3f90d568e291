"""telemetry.metrics: the series of exports and requests."""

from __future__ import annotations

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
