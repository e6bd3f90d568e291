"""What the controllers and the sweep work with, put together once."""

from __future__ import annotations

from dataclasses import dataclass, field

from provisioner.control.exports import ExportWatch
from provisioner.control.instances import Guard, Unguarded
from provisioner.control.recorder import EventRecorder
from provisioner.control.store import Store
from provisioner.control.supervision import Supervisor
from provisioner.core import times
from provisioner.core.archives import Moment
from provisioner.ports import Clock, Cluster, Exports
from provisioner.telemetry.metrics import Metrics


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """The ports, the cache, and where the work is told of."""

    provisioner: str
    cluster: Cluster
    store: Store
    exports: Exports
    watch: ExportWatch
    recorder: EventRecorder
    metrics: Metrics
    clock: Clock
    cluster_id: str = ""
    """What tells this cluster from others that share an export; known from the first term of leadership on."""
    guard: Guard = field(default_factory=Unguarded)
    """What is asked before anything is destroyed; each term of leadership has its own."""

    @property
    def supervisor(self) -> Supervisor:
        """What keeps loops running after an unexpected error."""
        return Supervisor(self.clock, self.metrics)

    def stamp(self) -> str:
        """The time as records and conditions carry it: UTC, RFC 3339, whole seconds.

        The API server's clock, where it has told: records are compared with the creation times of its objects.
        """
        return times.text(self.cluster.server_time() or self.clock.now())

    def moment(self) -> Moment:
        """What all clocks say now, for what one alone is not trusted with."""
        return Moment(wall=self.clock.now(), steady=self.clock.steady(), server=self.cluster.server_time())
