"""The count of requests in the metrics of an API server."""

from __future__ import annotations

from tests.benchmarks import usage

METRICS = """\
apiserver_flowcontrol_dispatched_requests_total{flow_schema="program",priority_level="exempt"} 30
apiserver_flowcontrol_dispatched_requests_total{flow_schema="exempt",priority_level="exempt"} 491
# HELP apiserver_request_total [STABLE] Counter of apiserver requests.
# TYPE apiserver_request_total counter
apiserver_request_total{code="201",resource="events",scope="resource",subresource="",verb="POST"} 6
apiserver_request_total{code="429",resource="events",scope="resource",subresource="",verb="POST"} 1
apiserver_request_total{code="200",resource="persistentvolumes",scope="resource",subresource="status",verb="PATCH"} 3
apiserver_request_total{code="200",resource="persistentvolumes",scope="cluster",subresource="",verb="LIST"} 2
apiserver_request_total{code="0",resource="persistentvolumes",scope="cluster",subresource="",verb="WATCH"} 4
apiserver_request_total{code="200",resource="leases",scope="resource",subresource="",verb="PUT"} 50
apiserver_request_duration_seconds_count{resource="events",subresource="",verb="POST"} 7
"""


def test_api_requests() -> None:
    """Requests of all codes count, by verb and resource; lists, watches, leases and other metrics do not."""
    assert usage.api_requests(METRICS) == {"POST events": 7, "PATCH persistentvolumes/status": 3}


def test_user_requests() -> None:
    """The requests of a FlowSchema count, whatever their kind; those of others do not."""
    assert usage.user_requests(METRICS, "program") == 30
    assert usage.user_requests(METRICS, "other") == 0
