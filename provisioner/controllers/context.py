"""Dependencies shared by all controllers."""

from __future__ import annotations

from dataclasses import dataclass, field

from provisioner.controllers.cache import ClusterCache
from provisioner.controllers.export_health import ExportHealth
from provisioner.controllers.failing_claims import FailingClaims
from provisioner.controllers.instances import Guard, Unguarded
from provisioner.controllers.usage_table import UsageTable
from provisioner.core import times
from provisioner.core.archives import Moment
from provisioner.ledger.registry import ExportRegistry
from provisioner.ports.clock import Clock
from provisioner.ports.cluster import Cluster
from provisioner.runtime.events import EventRecorder
from provisioner.runtime.supervision import Supervisor
from provisioner.telemetry.metrics import Metrics


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerContext:
    """The ports, the cache, events and metrics."""

    provisioner: str
    cluster: Cluster
    cache: ClusterCache
    exports: ExportRegistry
    health: ExportHealth
    recorder: EventRecorder
    metrics: Metrics
    clock: Clock
    cluster_id: str = ""
    """Distinguishes this cluster from others that share an export; known once this replica has led."""
    usage: UsageTable = field(default_factory=UsageTable)
    """Filled by the leader, and read by metrics."""
    failing: FailingClaims = field(default_factory=FailingClaims)
    """The same."""
    guard: Guard = field(default_factory=Unguarded)
    """Asked before anything is destroyed; each term of leadership has its own."""

    @property
    def supervisor(self) -> Supervisor:
        """Keeps loops running after an unexpected error."""
        return Supervisor(self.clock, self.metrics)

    def stamp(self) -> str:
        """Return the time for records and conditions: UTC, RFC 3339, whole seconds.

        It is the API server's time if known, because records are compared with the creation times of its objects.
        """
        return times.text(self.cluster.server_time() or self.clock.now())

    def moment(self) -> Moment:
        """The time by all clocks, for decisions that trust no single one."""
        return Moment(wall=self.clock.now(), steady=self.clock.steady(), server=self.cluster.server_time())
