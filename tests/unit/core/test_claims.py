"""core.claims: every answer to a claim, rule by rule."""

from __future__ import annotations

import dataclasses

import msgspec
import pytest
from msgspec import structs

from provisioner.core import claims, names
from provisioner.core.claims import ClaimView, CloneSource, Ignore, Provision, Refuse, Wait, mode_message
from provisioner.core.locations import Location, RelPath
from provisioner.core.objects import (
    Claim,
    ClaimRef,
    ClaimStatus,
    ContentSource,
    ContentSpec,
    DataSource,
    Metadata,
    Namespace,
    NfsSource,
    Snapshot,
    SnapshotContent,
    SnapshotStatus,
    StorageClass,
    Volume,
)
from provisioner.core.parameters import Ownership, parse
from provisioner.core.reasons import Reason
from provisioner.core.records import SnapshotRecord
from provisioner.core.tenancy import Tenant
from tests.support import samples

NAS = Location("nas", "/exports")


def view(
    claim: Claim | None = None,
    storage_class: StorageClass | None = None,
    *,
    volume: Volume | None = None,
    default_export: Location | None = NAS,
    holder: Volume | None = None,
    no_class: bool = False,
) -> ClaimView:
    """A view in which the sample claim can be provisioned, with changes."""
    return ClaimView(
        provisioner=samples.US,
        claim=claim or samples.claim(),
        storage_class=None if no_class else storage_class or samples.storage_class(),
        volume=volume,
        default_export=default_export,
        holder=lambda _export, _path: holder,
        now="2026-01-01T00:00:00Z",
    )


def of_class(parameters: dict[str, str] | None = None, *, provisioner: str = samples.US) -> ClaimView:
    """The same with a class of these parameters."""
    return view(storage_class=samples.storage_class(parameters, provisioner=provisioner))


def spec(**changes: object) -> Claim:
    """The sample claim with a changed spec."""
    return samples.claim(spec=msgspec.structs.replace(samples.claim_spec(), **changes))


def bound(capacity: str) -> Claim:
    """The sample claim with a volume of this size."""
    return samples.claim(status=ClaimStatus(phase="Bound", capacity={"storage": capacity}))


def wanting(archive: str, **changes: object) -> Claim:
    """The sample claim that asks for an archive, with a changed spec."""
    changed = msgspec.structs.replace(samples.claim_spec(), **changes)
    return samples.claim(annotations={names.RESTORE: archive}, spec=changed)


CLONE = DataSource("PersistentVolumeClaim", "a")
SNAPSHOT = DataSource("VolumeSnapshot", "a", "snapshot.storage.k8s.io")
IMAGE = DataSource("Image", "a", "populators.io")
BAD_OPTIONS = structs.replace(samples.storage_class(), mount_options=("nfsvers=7",))


def provision(of: ClaimView) -> Provision:
    plan = claims.decide(of)
    assert isinstance(plan, Provision)
    return plan


def test_provisioned() -> None:
    """A valid claim gets a volume of its own, with a directory by its class's pattern."""
    plan = provision(view())
    assert (plan.volume, plan.export, plan.record.directory) == (samples.VOLUME, NAS, samples.DIRECTORY)
    assert plan.access == Ownership(mode=0o777)
    assert not plan.adopt
    expected = samples.record(on_delete="archive")
    assert plan.record == msgspec.structs.replace(expected, modes="RWX", mount_options="nfsvers=4.1")


@pytest.mark.parametrize(
    ("of", "why"),
    [
        pytest.param(view(samples.claim(provisioner="other/one")), "another provisioner's", id="another's claim"),
        pytest.param(view(samples.claim(provisioner="")), "another provisioner's", id="assigned to no provisioner"),
        pytest.param(view(spec(volume_name="pv1")), "has a volume", id="has a volume"),
        pytest.param(view(samples.claim(status=ClaimStatus(phase="Lost"))), "has a volume", id="not pending"),
        pytest.param(view(samples.claim(deleted=True)), "being deleted", id="being deleted"),
        pytest.param(view(volume=samples.volume()), "volume exists", id="its volume exists"),
        pytest.param(view(spec(storage_class_name=None)), "no class", id="no class"),
        pytest.param(
            view(storage_class=samples.storage_class(provisioner="other/one")), "another", id="another's class"
        ),
    ],
)
def test_ignored(of: ClaimView, why: str) -> None:
    """A claim of another provisioner, or one that needs nothing, is ignored without an event."""
    decision = claims.decide(of)
    assert isinstance(decision, Ignore)
    assert why in decision.why


def test_ignored_before_all_else() -> None:
    """A claim of another provisioner is ignored even if it is invalid."""
    claim = samples.claim(
        provisioner="other/one", spec=msgspec.structs.replace(samples.claim_spec(), volume_mode="Block")
    )
    assert isinstance(claims.decide(view(claim, samples.storage_class({"no": "such"}))), Ignore)


def test_waits_for_its_class() -> None:
    """A claim whose class does not exist yet waits for it."""
    assert isinstance(claims.decide(view(no_class=True)), Wait)


def test_waits_for_a_node() -> None:
    """With WaitForFirstConsumer nothing is provisioned before a node is selected."""
    assert isinstance(claims.decide(view(storage_class=samples.storage_class(binding="WaitForFirstConsumer"))), Wait)


@pytest.mark.parametrize("key", names.SELECTED_NODE_ANNOTATIONS)
def test_node_selected(key: str) -> None:
    """Either annotation says that a node is selected."""
    claim = samples.claim(annotations={key: "node-1"})
    provision(view(claim, samples.storage_class(binding="WaitForFirstConsumer")))


@pytest.mark.parametrize(
    ("of", "reason", "words"),
    [
        (view(spec(volume_mode="Block")), Reason.UNSUPPORTED_VOLUME_MODE, "use volumeMode: Filesystem"),
        (view(spec(selector={})), Reason.UNSUPPORTED_SELECTOR, "remove spec.selector"),
        (
            view(spec(volume_attributes_class_name="gold")),
            Reason.UNSUPPORTED_ATTRIBUTES_CLASS,
            "remove spec.volumeAttributesClassName",
        ),
        (view(spec(data_source=SNAPSHOT)), Reason.UNSUPPORTED_DATA_SOURCE, "are not enabled"),
        (view(wanting("archived-a", data_source=IMAGE)), Reason.CONFLICTING_DATA_SOURCES, "both name a source"),
        (view(wanting("data")), Reason.INVALID_ARCHIVE_NAME, "'data' is not the name of an archive"),
        (view(wanting("archived-a/../b")), Reason.INVALID_ARCHIVE_NAME, "is not the name of an archive"),
        (view(wanting("archived-" + "a" * 800)), Reason.INVALID_RECORD, "the record of directory"),
        (view(samples.claim(spec=samples.claim_spec(size=""))), Reason.INVALID_SIZE, "not a quantity"),
        (view(samples.claim(spec=samples.claim_spec(size="0"))), Reason.INVALID_SIZE, "not above zero"),
        (view(samples.claim(spec=samples.claim_spec(size="-1Gi"))), Reason.INVALID_SIZE, "not above zero"),
        (of_class({"colour": "red"}), Reason.UNKNOWN_PARAMETER, "StorageClass nfs: parameter colour"),
        (of_class({"colour": "red", "mode": "x"}), Reason.UNKNOWN_PARAMETER, "parameter mode"),
        (of_class({"mode": "x"}), Reason.INVALID_PARAMETER, "StorageClass nfs: parameter mode"),
        (view(storage_class=BAD_OPTIONS), Reason.INVALID_MOUNT_OPTION, "StorageClass nfs: mount option nfsvers"),
        (of_class({"pathPattern": "${.PVC.labels.team}"}), Reason.MISSING_LABEL, "'team'"),
        (of_class({"pathPattern": "${.PVC.annotations.team}"}), Reason.MISSING_ANNOTATION, "'team'"),
        (of_class({"pathPattern": "../x"}), Reason.INVALID_PATH, "component '..'"),
        (of_class({"pathPattern": "/".join(["x" * 250] * 4)}), Reason.INVALID_RECORD, "shorter pathPattern"),
        (view(default_export=None), Reason.MISSING_EXPORT, "add the parameters server and share"),
        (view(holder=samples.volume(name="pv1", phase="Bound")), Reason.OVERLAPPING_DIRECTORY, "volume pv1 (/exports/"),
        (view(holder=samples.volume(name="pv1", phase="Bound", nfs=None)), Reason.OVERLAPPING_DIRECTORY, "volume pv1:"),
    ],
)
def test_refused(of: ClaimView, reason: Reason, words: str) -> None:
    """A claim that cannot be provisioned gets one Warning that says what to change, and a machine reason."""
    decision = claims.decide(of)
    assert isinstance(decision, Refuse)
    assert (decision.reason, decision.event_reason, decision.type) == (reason, "ProvisioningFailed", "Warning")
    assert words in decision.message


def test_restored() -> None:
    """The archive that a claim asks for is in its record; the retention of its own archive comes from its class."""
    storage_class = samples.storage_class({"archiveRetention": "30d"})
    record = provision(view(wanting("archived-a"), storage_class)).record
    assert (record.archive, record.retention) == ("archived-a", "30d")


# ------------------------------------------------------------------------------------------- clones


def origin(**changes: object) -> Claim:
    """The claim `a`, bound to volume `pvc-a`."""
    wanted = structs.replace(samples.claim_spec(volume_name="pvc-a"), **changes)
    return samples.claim(name="a", uid="uid-a", spec=wanted, status=ClaimStatus(phase="Bound"))


def original(**changes: object) -> Volume:
    """Its volume."""
    volume = samples.volume(name="pvc-a", phase="Bound")
    reference = ClaimRef(namespace="shop", name="a", uid="uid-a")
    return structs.replace(volume, spec=structs.replace(volume.spec, **{"claim_ref": reference, **changes}))


def cloning(source: CloneSource | None, asked: DataSource = CLONE, **changes: object) -> ClaimView:
    """A claim that asks for a clone, with what was found of its source."""
    return dataclasses.replace(view(spec(data_source=asked, **changes)), source=source)


FOUND = CloneSource(claim=origin(), volume=original())


@pytest.mark.parametrize("field", ["data_source", "data_source_ref"])
@pytest.mark.parametrize("namespace", [None, "", "shop"])
def test_a_clone(field: str, namespace: str | None) -> None:
    """A claim whose source is bound to a volume of this provisioner becomes a copy of that volume."""
    asked = DataSource("PersistentVolumeClaim", "a", namespace=namespace)
    of = dataclasses.replace(view(spec(**{field: asked})), source=FOUND)
    plan = provision(of)
    assert (plan.record.clone_of, plan.source) == ("pvc-a", FOUND)
    message = claims.succeeded_message(plan, plan.record)
    assert message.endswith("as a clone of claim shop/a")


def test_a_clone_that_has_begun() -> None:
    """From then on the source's claim does not matter: the record names the volume."""
    assert provision(cloning(CloneSource(begun="pvc-b"))).record.clone_of == "pvc-b"


def test_a_clone_whose_source_is_unknown() -> None:
    """A claim that asks for a clone never gets an empty volume."""
    assert isinstance(claims.decide(cloning(None)), Wait)


@pytest.mark.parametrize(
    ("of", "passing", "words"),
    [
        (cloning(FOUND, DataSource("PersistentVolumeClaim", "a", namespace="other")), False, "another namespace"),
        (cloning(CloneSource()), True, "source claim shop/a does not exist"),
        (cloning(CloneSource(claim=samples.claim(name="a", deleted=True))), True, "is being deleted"),
        (
            cloning(CloneSource(claim=origin(volume_mode="Block"), volume=original())),
            False,
            "both claims need the same",
        ),
        (cloning(dataclasses.replace(FOUND, volume=None)), True, "not bound"),
        (cloning(CloneSource(claim=samples.claim(name="a"), volume=original())), True, "not bound"),
        (cloning(CloneSource(claim=origin(volume_name="pvc-c"), volume=original())), True, "not bound"),
        (cloning(CloneSource(claim=origin(), volume=original(claim_ref=None))), True, "not bound"),
        (
            cloning(CloneSource(claim=origin(), volume=original(claim_ref=ClaimRef("shop", "a", "b")))),
            True,
            "not bound",
        ),
        (cloning(CloneSource(claim=origin(), volume=samples.volume(name="pvc-a"))), True, "not bound"),
        (cloning(CloneSource(claim=origin(), volume=original(nfs=None))), False, "another provisioner"),
        (
            cloning(FOUND, resources=samples.claim_spec(size="1Mi").resources),
            False,
            "requests 1Gi: request at least as much",
        ),
    ],
)
def test_a_clone_that_is_refused(of: ClaimView, passing: bool, words: str) -> None:
    """A source that does not meet the conditions of external-provisioner is refused; some causes end by themselves."""
    decision = claims.decide(of)
    assert isinstance(decision, Refuse)
    assert (decision.reason, decision.passing) == (Reason.CLONE_SOURCE_UNUSABLE, passing)
    assert words in decision.message
    assert (decision.type == "Normal") == ("not bound" in words)


def test_a_volume_of_another_provisioner() -> None:
    """The volume must say that it is of this provisioner."""
    volume = original()
    volume = structs.replace(volume, metadata=structs.replace(volume.metadata, annotations={}))
    decision = claims.decide(cloning(CloneSource(claim=origin(), volume=volume)))
    assert isinstance(decision, Refuse)
    assert "another provisioner" in decision.message


@pytest.mark.parametrize(
    ("claim", "storage_class", "expected"),
    [
        (spec(data_source=CLONE), samples.storage_class(), "a"),
        (spec(data_source=CLONE), None, None),
        (spec(data_source=CLONE), samples.storage_class(provisioner="other"), None),
        (spec(data_source=SNAPSHOT), samples.storage_class(), "a"),
        (spec(), samples.storage_class(), None),
        (spec(data_source=CLONE, volume_name="v"), samples.storage_class(), None),
        (structs.replace(spec(data_source=CLONE), status=ClaimStatus(phase="Bound")), samples.storage_class(), None),
    ],
)
def test_whose_source_is_read(claim: Claim, storage_class: StorageClass | None, expected: str | None) -> None:
    """The source is read live only for a pending claim of this provisioner that asks for a clone."""
    assert claims.clone_source_of(claim, storage_class, samples.US) == expected


def test_messages_of_copies() -> None:
    """Events tell source, progress and trouble of a copy, and what it lacks."""
    message = claims.copying_message(spec(data_source=CLONE), entries=1234, size_bytes=3 << 30, trouble="")
    assert message == "copying the data of claim shop/a: 1,234 entries and 3Gi so far"
    message = claims.copying_message(spec(), entries=0, size_bytes=0, trouble="is not responding")
    assert message.endswith("; the export is not responding")
    assert claims.left_out_message(2, ["a", "b"]).endswith("('a', 'b')")
    assert claims.left_out_message(3, ["a", "b"]).endswith("('a', 'b', …)")


def test_populators() -> None:
    """A data source of another kind is left to its populator, with a Normal event."""
    decision = claims.decide(view(spec(data_source_ref=DataSource("Image", "a", "populators.io"))))
    assert isinstance(decision, Refuse)
    assert (decision.reason, decision.event_reason, decision.type) == (
        "ExternalPopulator",
        "Provisioning",
        "Normal",
    )
    assert "an external populator is assumed" in decision.message


@pytest.mark.parametrize(
    ("holder", "waits"),
    [
        (samples.volume(name="pv1"), True),
        (samples.volume(name="pv1", phase="Available", deleted=True), True),
        (samples.volume(name="pv1", phase="Bound", deleted=True), False),
        (samples.volume(name="pv1", provisioner="other/one"), False),
        (samples.volume(name="pv1", policy="Retain"), False),
        (samples.volume(name="pv1", phase="Bound"), False),
        (samples.csi_volume({"server": "nas", "share": "/exports", "subdir": "a"}), False),
    ],
)
def test_taken_by_a_leaving_volume(holder: Volume, waits: bool) -> None:
    """A claim waits for a directory whose volume is being reclaimed; with any other holder it is refused."""
    assert isinstance(claims.decide(view(holder=holder)), Wait if waits else Refuse)


KEPT = samples.volume(name="pv1", policy="Retain", claim_uid="former")


@pytest.mark.parametrize(
    ("parameters", "policy", "adopts"),
    [
        ({"existing": "refuse"}, "Retain", False),
        ({}, "Delete", False),
        ({}, "Retain", True),
        ({"onDelete": "retain"}, "Delete", True),
    ],
)
def test_the_former_volume_is_kept(parameters: dict[str, str], policy: str, adopts: bool) -> None:
    """The event has the kubectl command that reuses a retained volume, and the one that frees its directory."""
    storage_class = samples.storage_class(parameters, reclaim_policy=policy)
    decision = claims.decide(view(storage_class=storage_class, holder=KEPT))
    assert isinstance(decision, Refuse)
    patch = '{"spec":{"claimRef":{"uid":null,"resourceVersion":null}}}'
    assert f"`kubectl patch pv pv1 -p '{patch}'`" in decision.message
    assert ("`kubectl delete pv pv1`" in decision.message) is adopts


@pytest.mark.parametrize(
    "holder",
    [
        samples.volume(name="pv1", policy="Retain", nfs=NfsSource("nas", "/exports/shop")),
        samples.volume(name="pv1", policy="Retain", nfs=None),
        samples.volume(name="pv1", policy="Retain", claim_uid=None),
        structs.replace(KEPT, spec=structs.replace(KEPT.spec, claim_ref=ClaimRef("lab", "data", "former"))),
        samples.volume(name="pv1", phase="Bound", policy="Retain"),
        samples.volume(name="pv1", phase="Available", claim_uid="another"),
    ],
)
def test_taken_by_another_volume(holder: Volume) -> None:
    """A retained volume of another directory or another claim counts as an overlap."""
    decision = claims.decide(view(holder=holder))
    assert isinstance(decision, Refuse)
    assert decision.reason == "OverlappingDirectory"
    assert "overlaps with" in decision.message
    assert "overlaps with volume pv1" in (decision.log_message or decision.message)


@pytest.mark.parametrize("uid", ["", samples.UID])
def test_a_volume_that_is_for_the_claim(uid: str) -> None:
    """If an admin created or freed a volume for the claim, it waits for Kubernetes to bind it."""
    holder = samples.volume(name="pv1", phase="Available", policy="Retain", claim_uid=uid)
    decision = claims.decide(view(holder=holder))
    assert isinstance(decision, Wait)
    assert decision.directory_taken


def test_holder_is_asked_for_the_right_path() -> None:
    """The holder is looked up for the export and the path that the claim would get."""
    asked: list[tuple[Location, RelPath]] = []

    def holder(export: Location, path: RelPath) -> Volume | None:
        asked.append((export, path))
        return None

    storage_class = samples.storage_class({"server": "other", "share": "/x", "pathPattern": "a/${.PVC.name}"})
    plan = provision(dataclasses.replace(view(storage_class=storage_class), holder=holder))
    assert asked == [(Location("other", "/x"), ("a", "data"))]
    assert plan.export == Location("other", "/x")


def space(parameters: dict[str, str], *, free_bytes: int = 50, provisioned_bytes: int = 0) -> Refuse | None:
    return claims.space_conflict(
        parse(parameters),
        "10",
        export="nas:/exports",
        size_bytes=100,
        free_bytes=free_bytes,
        provisioned_bytes=provisioned_bytes,
    )


@pytest.mark.parametrize(
    ("parameters", "free_bytes", "provisioned_bytes", "words"),
    [
        ({}, 0, 10**6, None),
        ({"minFree": "50"}, 50, 0, None),
        ({"minFree": "51"}, 50, 0, "minFree"),
        ({"minFree": "50%"}, 49, 0, "minFree"),
        ({"overcommit": "1"}, 50, 90, None),
        ({"overcommit": "1"}, 50, 91, "overcommit of 1"),
        ({"overcommit": "1.5"}, 50, 140, None),
        ({"overcommit": "1.5"}, 50, 141, "overcommit of 1.5"),
    ],
)
def test_space(parameters: dict[str, str], free_bytes: int, provisioned_bytes: int, words: str | None) -> None:
    """`minFree` and `overcommit` refuse claims exactly at their limits; without them no claim is refused for space."""
    refusal = space(parameters, free_bytes=free_bytes, provisioned_bytes=provisioned_bytes)
    assert (refusal is None) == (words is None)
    if refusal is not None and words is not None:
        assert words in refusal.message


def test_space_in_numbers() -> None:
    """The log has the free space; the event does not, so that its text stays the same from attempt to attempt."""
    few, fewer = (space({"minFree": "50"}, free_bytes=free_bytes) for free_bytes in (49, 48))
    assert few is not None
    assert fewer is not None
    assert few.reason == "NotEnoughSpace"
    assert few.message == fewer.message
    assert "49 free, below the class's minFree (50)" in few.log_message
    too_much = space({"overcommit": "1"}, provisioned_bytes=91)
    assert too_much is not None
    assert too_much.reason == "OvercommitExceeded"


def test_volume_body() -> None:
    """The PV controller can bind the volume only to this claim, and the volume has its rules as annotations."""
    plan = provision(view(storage_class=samples.storage_class({"onDelete": "delete"})))
    body = claims.volume_body(plan, provisioner=samples.US, record=plan.record, export_id=samples.EXPORT_ID)
    assert body == {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {
            "name": samples.VOLUME,
            "annotations": {
                "pv.kubernetes.io/provisioned-by": samples.US,
                "nfs-provisioner/on-delete": "delete",
                "nfs-provisioner/directory": samples.DIRECTORY,
                "nfs-provisioner/export-id": samples.EXPORT_ID,
            },
            "finalizers": ["external-provisioner.volume.kubernetes.io/finalizer"],
        },
        "spec": {
            "accessModes": ["ReadWriteMany"],
            "capacity": {"storage": "1Gi"},
            "claimRef": {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "namespace": "shop",
                "name": "data",
                "uid": samples.UID,
                "resourceVersion": "7",
            },
            "mountOptions": ["nfsvers=4.1"],
            "nfs": {"server": "nas", "path": f"/exports/{samples.DIRECTORY}"},
            "persistentVolumeReclaimPolicy": "Delete",
            "storageClassName": "nfs",
            "volumeMode": "Filesystem",
        },
    }


def test_a_volume_that_is_brought_back_says_the_milder_rule() -> None:
    """The volume has the rule that will be applied; the event names it if it is not the class's."""
    plan = provision(view(storage_class=samples.storage_class({"onDelete": "delete"})))
    milder = msgspec.structs.replace(plan.record, archive="archived-a", on_delete="archive")
    body = msgspec.convert(claims.volume_body(plan, provisioner=samples.US, record=milder, export_id="e"), Volume)
    assert body.metadata.annotations["nfs-provisioner/on-delete"] == "archive"
    assert claims.succeeded_message(plan, plan.record) == f"Successfully provisioned volume {samples.VOLUME}"
    message = claims.succeeded_message(plan, milder)
    assert message.startswith(
        f"Successfully provisioned volume {samples.VOLUME} from archive archived-a; onDelete stays"
    )
    same = msgspec.structs.replace(plan.record, archive="archived-a")
    assert claims.succeeded_message(plan, same).endswith("from archive archived-a")


def test_retained_volume_has_no_finalizer() -> None:
    """A volume of a class with policy Retain gets no finalizer."""
    plan = provision(view(storage_class=samples.storage_class(reclaim_policy="Retain")))
    body = claims.volume_body(plan, provisioner=samples.US, record=plan.record, export_id="e")
    metadata = msgspec.convert(body["metadata"], dict[str, object])
    assert metadata["finalizers"] == []


def test_volume_body_is_read_back() -> None:
    """The rules recognise a created volume as this provisioner's, on its export and in its recorded directory."""
    plan = provision(view())
    body = claims.volume_body(plan, provisioner=samples.US, record=plan.record, export_id="e")
    volume = msgspec.convert(body, Volume)
    assert volume.is_by(samples.US)
    assert volume.spec.nfs == NfsSource("nas", f"/exports/{samples.DIRECTORY}")
    assert NAS.relative("nas", volume.spec.nfs.path) == plan.record.path


@pytest.mark.parametrize(
    ("claim", "unfinished"),
    [
        pytest.param(samples.claim(), True, id="pending"),
        pytest.param(samples.claim(deleted=True), False, id="pending, going"),
        pytest.param(spec(volume_name="pv1"), False, id="pending, for a certain volume"),
        pytest.param(bound("1Gi"), False, id="bound"),
        pytest.param(bound("512Mi"), True, id="bound, to be larger"),
        pytest.param(samples.claim(status=ClaimStatus(phase="Lost")), False, id="lost"),
    ],
)
def test_unfinished(claim: Claim, unfinished: bool) -> None:
    """A claim is unfinished while it waits for a volume, or for a larger one."""
    assert claims.is_unfinished(claim) is unfinished


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"pathPattern": "${.PVC.annotations.x}"}, "the parameter pathPattern of StorageClass nfs"),
        ({"subdir": "../x"}, "the parameter subdir of StorageClass nfs"),
        ({"pathPattern": "", "subDir": "/"}, "the parameter subDir of StorageClass nfs"),
    ],
    ids=str,
)
def test_a_path_that_is_refused_names_its_parameter(parameters: dict[str, str], named: str) -> None:
    """The message names the problem with the path, the parameter as the class spells it, and what to change."""
    decision = claims.decide(of_class(parameters))
    assert isinstance(decision, Refuse)
    assert named in decision.message
    assert "change the claim's labels or annotations" in decision.message
    assert "${…:-other}" in decision.message


def test_what_the_event_says_of_annotations_that_have_no_effect() -> None:
    """The event names annotations of nfs-subdir's master that are ignored."""
    assert claims.provisioning_message(samples.claim()) == 'provisioning a volume for claim "shop/data"'
    assert not claims.unread_annotations(samples.claim())
    claim = samples.claim(annotations={"nfs.io/createMode": "0700", "nfs.io/createUID": "7", "nfs.io/path": "x"})
    assert claims.unread_annotations(claim) == ["nfs.io/createMode", "nfs.io/createUID"]
    assert "ignored annotations: nfs.io/createMode, nfs.io/createUID " in claims.provisioning_message(claim)


def test_a_mode_that_was_refused() -> None:
    """The message for a refused default mode has the mode, the directory, the server's answer and what to do."""
    message = mode_message("a/b", 0o777, "chmod: EPERM")
    assert all(word in message for word in ("0777", "'a/b'", "chmod: EPERM", 'mode: "0"'))


READING = "${.PVC.labels.team}/${.PVC.annotations.app:-none}/${.PVC.name}"


@pytest.mark.parametrize(
    ("claim", "storage_class", "reads"),
    [
        pytest.param(samples.claim(), samples.storage_class({"pathPattern": READING}), True, id="waits"),
        pytest.param(samples.claim(), samples.storage_class(), False, id="the default pattern"),
        pytest.param(samples.claim(), None, False, id="no class"),
        pytest.param(samples.claim(), samples.storage_class({"pathPattern": "${x}"}), False, id="an unusable class"),
        pytest.param(bound("1Gi"), samples.storage_class({"pathPattern": READING}), False, id="bound"),
        pytest.param(spec(volume_name="v"), samples.storage_class({"pathPattern": READING}), False, id="for a volume"),
    ],
)
def test_what_is_read_live(claim: Claim, storage_class: StorageClass | None, reads: bool) -> None:
    """A pending claim is read live if its class's pattern reads labels or annotations, which no cache keeps."""
    assert (claims.template_of(claim, storage_class) is not None) == reads


def test_a_claim_that_was_read_live() -> None:
    """The claim has only the labels and annotations that the pattern reads, shortened."""
    storage_class = samples.storage_class({"pathPattern": READING})
    live = samples.claim(
        labels={"team": "red", "other": "x" * 9999}, annotations={"other": "x" * 9999, "app": "y" * 9999}
    )
    template = claims.template_of(samples.claim(), storage_class)
    assert template is not None
    claim = claims.completed(samples.claim(), live, template)
    assert claim.metadata.labels == {"team": "red"}
    assert claim.metadata.annotations.keys() == {*samples.claim().metadata.annotations, "app"}
    assert len(claim.metadata.annotations["app"]) < 2000
    assert isinstance(claims.decide(view(claim=claim, storage_class=storage_class)), Refuse), (
        "it is too long for a path"
    )
    short = claims.completed(samples.claim(), samples.claim(labels={"team": "red"}), template)
    plan = claims.decide(view(claim=short, storage_class=storage_class))
    assert isinstance(plan, Provision)
    assert plan.record.directory == "red/none/data"


def test_a_volume_that_is_not_ours() -> None:
    """The message distinguishes a volume of a second installation for the same claim from a forged one."""
    claim = samples.claim()
    theirs = samples.volume(nfs=NfsSource("other", "/exports/x"))
    said = claims.another_volume(theirs, claim, samples.US)
    assert (
        f"another provisioner named {samples.US} created volume {samples.VOLUME} at the same time, on other:/exports/x"
        in said
    )
    forged = samples.volume(claim_uid="another-uid")
    assert "already exists and is not this claim's" in claims.another_volume(forged, claim, samples.US)


def test_the_root_of_another_export() -> None:
    """The refusal of a directory with another export's root names that export and what to change."""
    refusal = claims.root_conflict(provision(view()), Location("nas", "/exports/shop"))
    assert refusal.reason == "OverlappingDirectory"
    assert "nas:/exports/shop" in refusal.message
    assert "pathPattern" in refusal.message


def test_in_its_namespace() -> None:
    """A plan's record has the uid of the claim's namespace; the class decides about data of an earlier namespace."""
    plan = provision(of_class({"formerNamespace": "accept"}))
    found = Namespace(Metadata(name="shop", uid="ns-1", creation_timestamp="2026-01-01T00:00:00Z"))
    placed = claims.in_namespace(plan, found)
    assert placed.record == structs.replace(plan.record, namespace_uid="ns-1")
    assert placed.tenant == Tenant(uid="ns-1", created="2026-01-01T00:00:00Z", accepts_former=True)
    assert claims.in_namespace(plan, None).record == plan.record


def test_a_plan_that_still_holds() -> None:
    """A planned claim would still be provisioned while it, its class and the directory are as they were."""
    seen = view()
    plan = claims.decide(seen)
    assert isinstance(plan, Provision)
    assert claims.still_holds(plan, seen)
    taken = dataclasses.replace(seen, holder=lambda _export, _path: samples.volume(name="other"))
    assert not claims.still_holds(plan, taken)


def test_a_plan_after_a_change() -> None:
    """After a change of the claim or its class, all rules are asked again."""
    seen = view()
    plan = claims.decide(seen)
    assert isinstance(plan, Provision)
    assert claims.still_holds(plan, view(samples.claim(labels={"a": "b"})))
    assert not claims.still_holds(plan, view(samples.claim(deleted=True)))
    assert not claims.still_holds(plan, of_class({"colour": "red"}))


TAKEN = Snapshot(
    Metadata(name="a", namespace="shop", uid="5a5a"), status=SnapshotStatus("snapcontent-5a5a", ready_to_use=True)
)
CONTENT = SnapshotContent(
    Metadata(name="snapcontent-5a5a"),
    ContentSpec(samples.US, "Delete", ContentSource("pvc-a"), ClaimRef("shop", "a", "5a5a")),
)
STORED = SnapshotRecord("shop", "a", "data", "pvc-a", "snaps", "1Gi", "2026-01-01T00:00:00Z")
COMPLETE = CloneSource(snapshot=TAKEN, content=CONTENT, stored=STORED)


def test_a_restored_snapshot() -> None:
    """A claim that names a snapshot becomes a copy of it, and goes on with a copy that has begun."""
    plan = provision(cloning(COMPLETE, SNAPSHOT))
    assert plan.record.clone_of == names.snapshot_source("5a5a")
    assert provision(cloning(CloneSource(begun="snapshot_x"), SNAPSHOT)).record.clone_of == "snapshot_x"
    assert claims.succeeded_message(plan, plan.record).endswith("from snapshot shop/a")
    message = claims.copying_message(plan.claim, entries=1, size_bytes=0, trouble="")
    assert message.startswith("copying the data of snapshot shop/a: ")


HANDLE = "0a1b2c3d-0000-4000-8000-0123456789ab"


def by_handle(stored: SnapshotRecord | None, **changes: object) -> ClaimView:
    """A claim whose annotation names a snapshot by its handle, with what the ledgers have of it."""
    return dataclasses.replace(view(wanting(HANDLE, **changes)), source=CloneSource(handle=HANDLE, stored=stored))


def test_a_snapshot_by_its_handle() -> None:
    """A claim whose annotation names a snapshot becomes a copy of it, without any object of it."""
    asked = wanting(HANDLE)
    assert claims.clone_source_of(asked, samples.storage_class(), samples.US) == HANDLE
    assert claims.clone_source_of(wanting("archived-a"), samples.storage_class(), samples.US) is None
    plan = provision(by_handle(STORED))
    assert (plan.record.clone_of, plan.record.archive) == (names.snapshot_source(HANDLE), "")
    assert claims.succeeded_message(plan, plan.record).endswith(f"from snapshot {HANDLE}")
    message = claims.copying_message(plan.claim, entries=1, size_bytes=0, trouble="")
    assert message.startswith(f"copying the data of snapshot {HANDLE}: ")
    begun = dataclasses.replace(by_handle(None), source=CloneSource(begun="snapshot_x"))
    assert provision(begun).record.clone_of == "snapshot_x"


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        (None, "no ledger has a snapshot"),
        (structs.replace(STORED, namespace="other"), "no ledger has a snapshot"),
        (structs.replace(STORED, cluster="other"), "of another cluster"),
        (structs.replace(STORED, capacity="2Gi"), "of a volume of 2Gi"),
    ],
)
def test_a_handle_that_cannot_be_restored(stored: SnapshotRecord | None, message: str) -> None:
    """A snapshot of another namespace looks like none at all."""
    decision = claims.decide(by_handle(stored))
    assert isinstance(decision, Refuse)
    assert message in decision.message
    nothing = claims.decide(dataclasses.replace(by_handle(None), source=None))
    assert isinstance(nothing, Refuse)


@pytest.mark.parametrize(
    ("source", "asked", "message"),
    [
        (COMPLETE, structs.replace(SNAPSHOT, namespace="other"), "of another namespace"),
        (CloneSource(), SNAPSHOT, "does not exist"),
        (CloneSource(snapshot=structs.replace(TAKEN, status=SnapshotStatus())), SNAPSHOT, "not ready yet"),
        (CloneSource(snapshot=TAKEN, stored=STORED), SNAPSHOT, "another driver"),
        (CloneSource(snapshot=TAKEN, content=CONTENT), SNAPSHOT, "no ledger"),
        (dataclasses.replace(COMPLETE, stored=structs.replace(STORED, capacity="2Gi")), SNAPSHOT, "volume of 2Gi"),
    ],
)
def test_a_snapshot_that_cannot_be_restored(source: CloneSource, asked: DataSource, message: str) -> None:
    """The event says why a snapshot cannot become the claim's volume."""
    decision = claims.decide(cloning(source, asked))
    assert isinstance(decision, Refuse)
    assert message in decision.message
