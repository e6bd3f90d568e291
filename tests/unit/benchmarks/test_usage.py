"""The count of requests in the metrics of an API server."""

from __future__ import annotations

from tests.benchmarks import usage

METRICS = """\
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
