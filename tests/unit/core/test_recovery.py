"""core.recovery: which volumes of a lost cluster are recreated, and how."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from msgspec import structs

from provisioner.core import claims, names, recovery
from provisioner.core.claims import ClaimView, Provision
from provisioner.core.errors import InvalidSettings
from provisioner.core.locations import Location
from provisioner.core.objects import Claim, ClaimRef, NfsSource, Volume
from provisioner.core.records import NO_OBJECT, ArchiveRecord, Record, SnapshotRecord
from provisioner.core.recovery import (
    Action,
    ArchiveRemains,
    Contents,
    Enter,
    Lost,
    Make,
    Place,
    Present,
    Remains,
    Skip,
    choose,
    lost_clusters,
    plan_archives,
)
from provisioner.core.tenancy import ANY
from tests.support import samples

OLD, NEW = "old", "new"
PLACE = Place(name="nas:/exports", location=Location("nas", "/exports"), id=samples.EXPORT_ID)
V1, V2 = "pvc-1", "pvc-2"


def record(directory: str = "dir", *, uid: str = "1", cluster: str = OLD, **fields: object) -> Record:
    """The record of the new cluster says that an admin recovered it."""
    made = samples.record(directory, claim_uid=uid, namespace_uid=ANY if cluster == NEW else "")
    changed: Record = structs.replace(made, cluster=cluster, modes="RWX", mount_options="nfsvers=4.1,hard", **fields)
    return changed


def remains(
    held: Record | None = None,
    *,
    volume: str = V1,
    pending: bool = False,
    contents: Contents = "data",
    trouble: str = "",
) -> Remains:
    return Remains(
        place=PLACE, volume=volume, record=held or record(), pending=pending, contents=contents, trouble=trouble
    )


def present(*items: Volume | Claim, cluster: str = NEW) -> Present:
    return Present(
        provisioner=samples.US,
        cluster=cluster,
        volumes={item.name: item for item in items if isinstance(item, Volume)},
        claims={item.key: item for item in items if isinstance(item, Claim)},
    )


def volume(
    name: str = V1,
    *,
    path: str | None = "/exports/dir",
    reference: ClaimRef | None = ClaimRef("shop", "data", ""),  # noqa: B008  frozen
    phase: str = "Available",
) -> Volume:
    made = samples.volume(name=name, phase=phase, nfs=None if path is None else NfsSource("NAS", path))
    return structs.replace(made, spec=structs.replace(made.spec, claim_ref=reference))


def actions(
    *found: Remains, now: Present | None = None, lost: str | None = OLD, named: Collection[str] = ()
) -> dict[str, Action]:
    """Return the action for each volume in the report."""
    now = now or present()
    meant = recovery.selected(found, now, lost=lost, named=named)
    return {step.remains.volume: step.action for step in recovery.plan(meant, now, by_name=bool(named))}


def why(action: Action) -> str:
    assert isinstance(action, Skip)
    return action.why


class TestTheVolume:
    def test_is_what_it_was(self) -> None:
        """It has its old name, directory, size, modes, options and class, is retained, and waits for its old claim."""
        action = actions(remains())[V1]
        assert isinstance(action, Make)
        assert action.body == {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {
                "name": V1,
                "annotations": {
                    names.PROVISIONED_BY: samples.US,
                    names.ON_DELETE: "delete",
                    names.DIRECTORY: "dir",
                    names.EXPORT_ID: samples.EXPORT_ID,
                },
                "finalizers": [],
            },
            "spec": {
                "accessModes": ["ReadWriteMany"],
                "capacity": {"storage": "1Gi"},
                "claimRef": {
                    "apiVersion": "v1",
                    "kind": "PersistentVolumeClaim",
                    "namespace": "shop",
                    "name": "data",
                },
                "mountOptions": ["nfsvers=4.1", "hard"],
                "nfs": {"server": "nas", "path": "/exports/dir"},
                "persistentVolumeReclaimPolicy": "Retain",
                "storageClassName": "nfs",
                "volumeMode": "Filesystem",
            },
        }
        assert action.record == record(uid="", cluster=NEW, volume_uid=NO_OBJECT)

    def test_is_as_it_was_provisioned(self) -> None:
        """Except for claim uid, policy and finalizer it is the volume of the lost cluster."""
        claim, storage_class = samples.claim(), samples.storage_class()
        view = ClaimView(
            provisioner=samples.US,
            claim=claim,
            storage_class=storage_class,
            volume=None,
            default_export=PLACE.location,
            holder=lambda export, path: None,
            now="2026-01-01T00:00:00Z",
            cluster=OLD,
        )
        plan = claims.decide(view)
        assert isinstance(plan, Provision)
        first = claims.volume_body(plan, provisioner=samples.US, record=plan.record, export_id=PLACE.id)
        action = actions(remains(plan.record, volume=plan.volume))[plan.volume]
        assert isinstance(action, Make)
        again = {key: dict(value) if isinstance(value, dict) else value for key, value in action.body.items()}
        for key, value in first.items():
            if key == "metadata":
                assert isinstance(value, dict)
                value["finalizers"] = []
            elif key == "spec":
                assert isinstance(value, dict)
                value["persistentVolumeReclaimPolicy"] = "Retain"
                del value["claimRef"]["uid"], value["claimRef"]["resourceVersion"]
            assert again[key] == value

    def test_without_modes_and_options(self) -> None:
        """A record without access modes gives the volume all modes that NFS supports."""
        bare = structs.replace(record(), modes="", mount_options="")
        action = actions(remains(bare))[V1]
        assert isinstance(action, Make)
        spec = action.body["spec"]
        assert isinstance(spec, dict)
        assert spec["accessModes"] == ["ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany"]
        assert spec["mountOptions"] == []

    def test_of_a_living_claim(self) -> None:
        """If the claim still exists, the volume and the record name it by its uid."""
        lost_its_volume = samples.claim(uid="1", spec=samples.claim_spec(volume_name=V1))
        action = actions(remains(record(cluster=NEW)), now=present(lost_its_volume), lost=None, named=[V1])[V1]
        assert isinstance(action, Make)
        spec = action.body["spec"]
        assert isinstance(spec, dict)
        assert spec["claimRef"]["uid"] == action.record.claim_uid == "1"


class TestNotMade:
    def test_gone(self) -> None:
        """A volume whose directory is gone, or cannot be read, is not recreated."""
        assert "directory is gone" in why(actions(remains(contents="gone"))[V1])
        assert why(actions(remains(trouble="it is a symlink"))[V1]) == "it is a symlink"

    def test_attempts(self) -> None:
        """A record that never had a volume is reported only if there is data, and recovered only by name."""
        assert actions(remains(pending=True, contents="gone")) == {}
        assert actions(remains(pending=True, contents="empty")) == {}
        assert why(actions(remains(pending=True))[V1]).startswith("left: ")
        assert isinstance(actions(remains(pending=True), named=[V1])[V1], Make)
        assert "no data" in why(actions(remains(pending=True, contents="empty"), named=[V1])[V1])

    def test_retained(self) -> None:
        """A retained directory is recorded without a volume; by name it becomes a volume again."""
        kept = record(retained="2026-01-02T00:00:00Z")
        action = actions(remains(kept))[V1]
        assert isinstance(action, Enter)
        assert action.record == structs.replace(kept, cluster=NEW, namespace_uid=ANY)
        by_name = actions(remains(kept), named=[V1])[V1]
        assert isinstance(by_name, Make)
        assert by_name.record.retained == ""

    def test_there_already(self) -> None:
        """If the volume exists, only the record is written, with the claim's uid if it has one."""
        bound = volume(reference=ClaimRef("shop", "data", "77"), phase="Bound")
        its_claim = samples.claim(uid="77")
        action = actions(remains(), now=present(bound, its_claim))[V1]
        assert isinstance(action, Enter)
        assert action == Enter(record(uid="77", cluster=NEW, volume_uid=f"uid-of-{V1}"), action.why, bound)
        known = remains(record(uid="", cluster=NEW, volume_uid=f"uid-of-{V1}"))
        assert actions(known, now=present(bound)) == {}
        assert why(actions(known, now=present(bound), named=[V1])[V1]) == "the volume already exists"

    def test_another_object(self) -> None:
        """A recreated volume of the same cluster gets the record by name, if it cannot be reclaimed by that."""
        ours = remains(record(cluster=NEW, volume_uid="another"))
        again = volume(reference=ClaimRef("shop", "data", "1"), phase="Released")
        assert actions(ours, now=present(again)) == {}
        assert "patch pv pvc-1" in why(actions(ours, now=present(again), named=[V1])[V1])
        kept = structs.replace(again, spec=structs.replace(again.spec, persistent_volume_reclaim_policy="Retain"))
        for now in (present(kept), present(again, samples.claim(uid="1"))):
            action = actions(ours, now=now, named=[V1])[V1]
            assert isinstance(action, Enter)
            assert action.record == record(cluster=NEW, volume_uid=f"uid-of-{V1}")

    def test_bound_to_another_claim(self) -> None:
        """A volume that another claim has becomes that claim's by name, if the recorded claim is gone."""
        ours, theirs = remains(record(cluster=NEW)), samples.claim(name="new", uid="7")
        having = structs.replace(theirs, spec=samples.claim_spec(volume_name=V1))
        bound = volume(reference=ClaimRef("shop", "new", "7"), phase="Bound")
        action = actions(ours, now=present(bound, having), named=[V1])[V1]
        assert isinstance(action, Enter)
        assert action.record == record(uid="7", cluster=NEW, claim="new", volume_uid=f"uid-of-{V1}")
        for others in ((), (theirs,), (having, samples.claim(uid="1"))):
            assert "another volume" in why(actions(ours, now=present(bound, *others), named=[V1])[V1])
        assert "another volume" in why(actions(remains(), now=present(bound, having))[V1])

    def test_cut_off_before_the_uid(self) -> None:
        """A recovery that created the volume but was interrupted before it knew the uid is resumed."""
        begun = remains(record(uid="", cluster=NEW, volume_uid=NO_OBJECT))
        action = actions(begun, now=present(volume()))[V1]
        assert isinstance(action, Enter)
        assert action.record == record(uid="", cluster=NEW, volume_uid=f"uid-of-{V1}")

    @pytest.mark.parametrize(
        "other",
        [
            volume(path="/exports/other"),
            volume(path=None),
            volume(reference=None),
            volume(reference=ClaimRef("shop", "other", "")),
        ],
        ids=["directory", "no NFS", "no claim", "claim"],
    )
    def test_a_strangers_volume(self, other: Volume) -> None:
        """Another volume of the same name is skipped."""
        assert "another volume of that name" in why(actions(remains(), now=present(other))[V1])

    @pytest.mark.parametrize("path", ["/exports/dir", "/exports/dir/below", "/exports/dir/"])
    def test_a_directory_that_is_taken(self, path: str) -> None:
        """A directory that overlaps with that of another volume is skipped."""
        other = volume("static", path=path, reference=None)
        assert "overlaps with that of volume static" in why(actions(remains(), now=present(other))[V1])
        whole = volume("everything", path="/exports", reference=None)
        elsewhere = volume("elsewhere", path=None, reference=None)
        assert isinstance(actions(remains(), now=present(whole, elsewhere))[V1], Make)

    def test_by_another_name_of_the_export(self) -> None:
        """Volumes are compared by any location of the export."""
        names_of_it = replace(PLACE, locations=(PLACE.location, Location("10.0.0.5", "/srv")))
        here = replace(remains(), place=names_of_it)

        def at(name: str, path: str, phase: str = "Available") -> Volume:
            made = volume(name, phase=phase, reference=ClaimRef("shop", "data", "77"))
            return structs.replace(made, spec=structs.replace(made.spec, nfs=NfsSource("10.0.0.5", path)))

        below = present(at("static", "/srv/dir/below"))
        assert "overlaps with that of volume static" in why(actions(here, now=below)[V1])
        assert "another volume of that name" not in why(actions(here, now=present(at(V1, "/srv/dir", "Bound")))[V1])
        assert "another volume of that name" in why(actions(here, now=present(at(V1, "/dir", "Bound")))[V1])

    def test_on_a_server_that_folds_names(self) -> None:
        """On a server that folds names, other spellings of a directory overlap, too."""
        other = volume("static", path="/exports/DIR", reference=None)
        folding = replace(remains(), place=replace(PLACE, folds=True))
        assert "overlaps with that of volume static" in why(actions(folding, now=present(other))[V1])
        assert isinstance(actions(remains(), now=present(other))[V1], Make)

    def test_a_claim_that_has_a_volume(self) -> None:
        """A claim that was recreated too early and got a new volume is reported; a pending one gets the old volume."""
        hasty = samples.claim(uid="9", spec=samples.claim_spec(volume_name="pvc-9"))
        assert "its claim already has volume pvc-9" in why(actions(remains(), now=present(hasty))[V1])
        for waits in (samples.claim_spec(), samples.claim_spec(volume_name=V1)):
            assert isinstance(actions(remains(), now=present(samples.claim(uid="9", spec=waits)))[V1], Make)

    def test_a_claim_for_which_a_volume_waits(self) -> None:
        """A claim with a volume gets no second one; a Released volume does not count."""
        other = volume("other", path="/elsewhere/x")
        assert "volume other already exists for its claim" in why(actions(remains(), now=present(other))[V1])
        released = volume("other", path="/elsewhere/x", phase="Released")
        assert isinstance(actions(remains(), now=present(released))[V1], Make)


class TestSeveral:
    def test_two_for_one_claim(self) -> None:
        """Of two volumes for one claim the newer is recreated; the older is reported, or recreated by name."""
        older = remains(record("one", created="2026-01-01T00:00:00Z"))
        newer = remains(record("two", uid="2", created="2026-01-02T00:00:00Z"), volume=V2)
        done = actions(older, newer)
        assert isinstance(done[V2], Make)
        assert f"volume {V2} is of the same claim, and newer" in why(done[V1])
        assert isinstance(actions(older, newer, named=[V1])[V1], Make)

    def test_two_in_one_directory(self) -> None:
        """Of two records of one directory the newer gets it."""
        older = remains(record("a", claim="one", created="2026-01-01T00:00:00Z"))
        newer = remains(record("a/b", claim="two", uid="2", created="2026-01-02T00:00:00Z"), volume=V2)
        done = actions(older, newer)
        assert isinstance(done[V2], Make)
        assert f"overlaps with that of volume {V2}" in why(done[V1])

    def test_in_the_order_of_claims(self) -> None:
        """Volumes are listed in the order of their claims."""
        found = [remains(record(claim, claim=claim), volume=f"pvc-{claim}") for claim in ("c", "a", "b")]
        assert list(actions(*found)) == ["pvc-a", "pvc-b", "pvc-c"]


class TestWhose:
    def test_the_lost_clusters(self) -> None:
        """Volumes of a third cluster, and existing ones of this cluster, are left alone."""
        third = remains(record("a", cluster="third"))
        ours = remains(record("b", cluster=NEW), volume=V2)
        assert actions(third, ours) == {}
        assert actions(third, ours, named=["pvc-x"]) == {}

    def test_cut_off(self) -> None:
        """A recovery that was interrupted between record and volume is resumed, whichever cluster is recovered."""
        begun = record(uid="", cluster=NEW)
        assert isinstance(actions(remains(begun), lost=None)[V1], Make)
        assert actions(remains(begun, pending=True), lost=None) == {}
        assert actions(remains(structs.replace(begun, retained="x")), lost=None) == {}

    def test_our_own(self) -> None:
        """A volume of this cluster that was deleted manually is recreated, but only by name."""
        ours = remains(record(cluster=NEW))
        assert actions(ours) == {}
        action = actions(ours, named=[V1])[V1]
        assert isinstance(action, Make)
        assert action.record == record(uid="", cluster=NEW, volume_uid=NO_OBJECT)

    def test_without_a_cluster(self) -> None:
        """Without a cluster to ask, all records belong to other clusters."""
        assert isinstance(actions(remains(), now=present(cluster=""))[V1], Make)
        assert actions(remains(), now=present(cluster=""), lost="") == {}


def archive(cluster: str = OLD) -> ArchiveRemains:
    was = ArchiveRecord(V2, "2026-01-02T00:00:00Z", record(cluster=cluster))
    return ArchiveRemains(place=PLACE, archive="archived-dir", record=was)


def test_archives_come_along() -> None:
    """An archive of the lost cluster becomes this cluster's, otherwise unchanged; other archives stay as they are."""
    (made,) = plan_archives([archive(), archive("third"), archive(NEW)], present(), lost=OLD)
    assert made == archive(NEW)
    assert plan_archives([archive(NEW)], present(), lost=NEW) == []


def test_recovered_for_the_namespace_that_is_there() -> None:
    """Recovered data belongs to the namespace that has the name now, or to the next one that gets it."""
    now = replace(present(), namespaces={"shop": "ns-new"})
    kept = remains(record(retained="2026-02-01T00:00:00Z"), volume=V2)
    for action in actions(remains(), kept, now=now).values():
        assert not isinstance(action, Skip)
        assert action.record.namespace_uid == "ns-new"
    (archived,) = plan_archives([archive()], now, lost=OLD)
    assert archived.record.was.namespace_uid == "ns-new"
    bound = actions(remains(), now=replace(present(volume(phase="Bound")), namespaces={"shop": "ns-new"}))[V1]
    assert isinstance(bound, Enter)
    assert bound.record.namespace_uid == "ns-new"


class TestWhichCluster:
    def test_counted(self) -> None:
        """Each other cluster is listed with its volumes and archives, and when it was last seen on any export."""
        signs = [{OLD: "2026-01-02T00:00:00Z"}, {OLD: "2026-01-01T00:00:00Z", NEW: "2026-01-03T00:00:00Z"}]
        found = [remains(), remains(volume=V2), remains(record(cluster=NEW)), remains(record(cluster=""))]
        assert lost_clusters(found, [archive(), archive("third")], signs, this=NEW) == [
            Lost(cluster="", volumes=1, archives=0, snapshots=0, signed=""),
            Lost(cluster=OLD, volumes=2, archives=1, snapshots=0, signed="2026-01-02T00:00:00Z"),
            Lost(cluster="third", volumes=0, archives=1, snapshots=0, signed=""),
        ]

    def test_snapshots_alone(self) -> None:
        """A cluster of which only snapshots are left is listed with them."""
        taken = SnapshotRecord("shop", "nightly", "data", V1, "snaps", "1Gi", "2026-01-01T00:00:00Z", OLD)
        (lost,) = lost_clusters([], [], [], this=NEW, snapshots=[taken, taken])
        assert str(lost) == "old: 0 volumes, 0 archives, 2 snapshots, never seen"

    def test_one(self) -> None:
        """The only other cluster needs no name; if there is none, nothing is chosen."""
        only = Lost(cluster=OLD, volumes=1, archives=0, snapshots=0, signed="")
        assert choose([only], None, this=NEW) == choose([only], OLD, this=NEW) == only
        assert choose([], None, this=NEW) is None

    def test_several(self) -> None:
        """Of several clusters one must be named, and the refusal lists them."""
        several = [
            Lost(cluster="", volumes=0, archives=1, snapshots=0, signed=""),
            Lost(cluster=OLD, volumes=7, archives=0, snapshots=0, signed="2026-01-01T00:00:00Z"),
        ]
        with pytest.raises(InvalidSettings, match=r"--cluster: \(without an id\).*old: 7 volumes.*2026-01-01"):
            choose(several, None, this=NEW)
        assert choose(several, "", this="") == several[0]

    def test_unknown(self) -> None:
        """An unknown cluster and this cluster itself are refused, with the known ones."""
        with pytest.raises(InvalidSettings, match="known clusters: none"):
            choose([], "typo", this=NEW)
        with pytest.raises(InvalidSettings, match="--volume"):
            choose([], NEW, this=NEW)

    @pytest.mark.parametrize(
        ("signed", "alive"),
        [
            ("2026-01-01T11:58:00Z", True),
            ("2026-01-01T12:05:00Z", True),
            ("2026-01-01T11:00:00Z", False),
            ("", False),
            ("rubbish", False),
        ],
    )
    def test_alive(self, signed: str, alive: bool) -> None:
        """A cluster whose provisioner signed in the last minutes, or with a clock that is ahead, counts as alive."""
        lost = Lost(cluster=OLD, volumes=1, archives=0, snapshots=0, signed=signed)
        assert lost.is_alive(datetime(2026, 1, 1, 12, tzinfo=UTC)) is alive

    def test_what_is_said_of_a_cluster_that_is_alive(self) -> None:
        """The message names the cluster, when it was at work, and the flag that confirms it is gone."""
        said = Lost(cluster="old", volumes=1, archives=0, snapshots=0, signed="2026-01-01T00:00:00Z").is_at_work()
        assert "cluster old was at work on these exports at 2026-01-01T00:00:00Z" in said
        assert said.endswith(f"add {recovery.GONE_FLAG}")
