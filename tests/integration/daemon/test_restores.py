"""Restores end to end: by annotation, across crashes, and by command."""

from __future__ import annotations

import json
import random
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml

from testbed.cluster import ControlPlane, TokenUser
from tests.integration.conftest import Service
from tests.support.archiving import RESTORE, archive, command, names, records, text_of
from tests.support.daemon import Daemon, Daemons
from tests.support.storage import ServedStorage, Storage

pytestmark = pytest.mark.timeout(180)


def start(daemon: Daemons, directory: Path) -> Daemon:
    """Start a daemon on the directory, without leader election: it waits for no predecessor's lease."""
    return daemon(f"--export=nas.example:/x={directory}", "--no-leader-election")


def archive_class(storage: Storage, daemon: Daemon) -> str:
    """Create a class that archives."""
    return storage.storage_class(daemon.provisioner_name, {"onDelete": "archive"})


def claim_archive(storage: Storage, class_name: str, claim: str, archived: str) -> None:
    """Create a claim that asks for an archive."""
    storage.claim(class_name, claim, metadata={"annotations": {RESTORE: archived}})


# ---------------------------------------------------------------------------------------------------- by annotation


def test_restored_by_annotation(served: ServedStorage) -> None:
    """A claim that asks for an archive gets its data by a rename, and the archive no longer exists."""
    root, class_name = served.export.root, served.own_class()
    name = archive(served, root, class_name, "old", text="bytes")
    inode = (root / name).stat().st_ino
    claim_archive(served, class_name, "new", name)
    assert text_of(served, root, "new") == "bytes"
    assert served.directory(served.bound("new")).stat().st_ino == inode
    output = served.event("ProvisioningSucceeded", "new")["message"]
    assert name in output
    assert name not in names(root)
    served.eventually(lambda: name not in records(root), "the archive's record has ended")


def test_one_archive_for_two_claims(served: ServedStorage) -> None:
    """Of two claims that ask for one archive, one gets it, and the other's event says so."""
    root, class_name = served.export.root, served.own_class()
    name = archive(served, root, class_name, "old")
    for claim in ("one", "two"):
        claim_archive(served, class_name, claim, name)
    bound = served.eventually(
        lambda: [c for c in ("one", "two") if not served.unbound([c])], "one of them is bound", timeout_s=30
    )
    (other,) = {"one", "two"} - set(bound)
    assert name in served.refusal(other)
    assert text_of(served, root, bound[0]) == "precious"


def test_annotations_that_are_refused(control_plane: ControlPlane, served: ServedStorage, service: Service) -> None:
    """Another namespace, another export, an unknown archive or a dataSource is refused, and the archive stays."""
    root, class_name = served.export.root, served.own_class()
    name = archive(served, root, class_name, "old")
    before = records(root)[name]
    other = f"{served.namespace}-other"
    control_plane.api.post("/api/v1/namespaces", {"metadata": {"name": other}})
    stranger = ServedStorage(control_plane.api, other, daemon=service.daemon, export=service.export)
    claim_archive(stranger, class_name, "data", name)
    assert f"there is no archive {name!r} of namespace {other}" in stranger.refusal()
    claim_archive(served, served.own_class(service.second.parameters), "elsewhere", name)
    assert f"it is on export {service.export.location}" in served.refusal("elsewhere")
    claim_archive(served, class_name, "unknown", "archived-nothing")
    assert "there is no archive 'archived-nothing'" in served.refusal("unknown")
    claim_archive(served, class_name, "nonsense", "../etc")
    assert "is not the name of an archive" in served.refusal("nonsense")
    annotations = {"annotations": {RESTORE: name}}
    source = {"kind": "PersistentVolumeClaim", "name": "old"}
    served.claim(class_name, "both", metadata=annotations, dataSource=source)
    assert "both name a source for the data" in served.refusal("both")
    assert records(root)[name] == before
    assert (root / name / "file").read_text() == "precious"
    control_plane.api.delete(f"/api/v1/namespaces/{other}")


def test_a_deleted_claim_gives_its_archive_back(daemon: Daemons, storage: Storage, export_directory: Path) -> None:
    """A claim deleted while the daemon is down in the middle of its restore leaves the archive as it was."""
    started = start(daemon, export_directory)
    class_name = archive_class(storage, started)
    name = archive(storage, export_directory, class_name)
    claim_archive(storage, class_name, "new", name)
    storage.bound("new")
    # This is what a crash right before the volume's creation leaves.
    uid = storage.get_claim("new")["metadata"]["uid"]
    started.kill()
    ledger = export_directory / ".provisioner"
    assert not (ledger / "pending" / f"pvc-{uid}").is_symlink()
    (ledger / "volumes" / f"pvc-{uid}").rename(ledger / "pending" / f"pvc-{uid}")
    record = json.loads((ledger / "pending" / f"pvc-{uid}").readlink().as_posix())
    was = record | {"del": "archive"}
    (ledger / "archives" / name).symlink_to(
        json.dumps({"v": 1, "pv": "pvc-old", "at": "2026-01-01T00:00:00Z", "was": was, "to": f"pvc-{uid}"})
    )
    storage.api.patch(f"/api/v1/persistentvolumes/pvc-{uid}", {"metadata": {"finalizers": None}})
    storage.api.patch(f"{storage.claims}/new", {"metadata": {"finalizers": None}})
    storage.delete_if_there(f"{storage.claims}/new")
    storage.delete_if_there(f"/api/v1/persistentvolumes/pvc-{uid}")
    storage.volume_gone(f"pvc-{uid}")
    started.start()
    storage.eventually(lambda: names(export_directory) == {name}, "the archive is back", timeout_s=90)
    assert (export_directory / name / "file").read_text() == "precious"


@pytest.mark.timeout(300)
def test_restores_and_crashes(daemon: Daemons, storage: Storage, export_directory: Path) -> None:
    """When the daemon is killed repeatedly while claims restore their archives, each gets its own bytes, once."""
    started = start(daemon, export_directory)
    class_name = archive_class(storage, started)
    with ThreadPoolExecutor(6) as pool:
        made = pool.map(
            lambda n: archive(storage, export_directory, class_name, f"old-{n}", text=f"bytes {n}"), range(12)
        )
        archived = dict(enumerate(made))
    chance = random.Random(5)
    for number, name in archived.items():
        claim_archive(storage, class_name, f"new-{number}", name)
        if number % 4 == 3:
            time.sleep(chance.uniform(0.0, 0.15))
            started.kill()
            started.start()
    for number in archived:
        assert text_of(storage, export_directory, f"new-{number}") == f"bytes {number}"
    assert names(export_directory) == set()
    storage.eventually(lambda: not records(export_directory), "the archives' records have ended", timeout_s=90)
    assert not list((export_directory / ".provisioner/pending").iterdir())


# ---------------------------------------------------------------------------------------------------- by command


def restore(control_plane: ControlPlane, served: ServedStorage, name: str, claim: str, *flags: str) -> tuple[int, str]:
    """Run `restore` for a claim of the test's namespace, or of another; return its status and its stderr."""
    where = claim if "/" in claim else f"{served.namespace}/{claim}"
    words = (served.export.flag, name, f"--claim={where}", *flags)
    done = command(control_plane, "restore", served.provisioner, *words)
    return done.returncode, done.stderr


def test_restored_by_command(control_plane: ControlPlane, served: ServedStorage) -> None:
    """The command creates a claim like the archived one, prints its events, and exits when the claim has the data."""
    root, class_name = served.export.root, served.own_class()
    name = archive(served, root, class_name, "old", text="bytes")
    status, output = restore(control_plane, served, name, "new")
    assert status == 0, output
    assert "ProvisioningSucceeded" in output
    assert f"has the data of archive {name}" in output
    claim = served.get_claim("new")
    assert claim["spec"]["storageClassName"] == class_name
    assert claim["spec"]["resources"]["requests"]["storage"] == "1Mi"
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    assert text_of(served, root, "new") == "bytes"


def test_claims_and_classes_as_they_are(control_plane: ControlPlane, served: ServedStorage) -> None:
    """A claim that waits for another archive is left alone; `--class` replaces a class that is gone."""
    root, class_name = served.export.root, served.own_class()
    first, second = (archive(served, root, class_name, name, text=name) for name in ("first", "second"))
    refused = served.own_class({"minFree": "100%"})
    served.claim(refused, "waiting", metadata={"annotations": {RESTORE: first}})
    served.refusal("waiting")
    status, output = restore(control_plane, served, second, "waiting")
    assert (status, f"already asks for archive '{first}'" in output) == (1, True), output
    served.api.delete(f"/apis/storage.k8s.io/v1/storageclasses/{class_name}")
    status, output = restore(control_plane, served, second, "new")
    assert (status, f"StorageClass {class_name} does not exist" in output) == (1, True), output
    status, output = restore(control_plane, served, second, "new", f"--class={served.own_class()}")
    assert status == 0, output
    assert text_of(served, root, "new") == "second"


def test_what_the_command_refuses(control_plane: ControlPlane, served: ServedStorage, service: Service) -> None:
    """The command gives its reason for refusing another namespace, an unknown or unrecorded archive, a bound claim."""
    root, class_name = served.export.root, served.own_class()
    name = archive(served, root, class_name, "old")
    served.claim(class_name, "bound")
    served.bound("bound")
    (root / "archived-bare").mkdir()
    cases = {
        (name, "default/new"): "is not of namespace default",
        ("archived-none", "new"): "there is no archive archived-none",
        ("archived-bare", "new"): "has no record",
        (name, "bound"): "already has a volume",
    }
    for (wanted, claim), words in cases.items():
        status, output = restore(control_plane, served, wanted, claim)
        assert (status, words in output) == (1, True), output
    status, output = restore(control_plane, served, name, "no/such/claim")
    assert (status, "NAMESPACE/NAME" in output) == (2, True), output
    elsewhere = served.own_class(service.second.parameters)
    status, output = restore(control_plane, served, name, "new", f"--class={elsewhere}")
    assert (status, "is not on that export" in output) == (1, True), output
    (root / "archived-bare").rmdir()
    assert (root / name / "file").read_text() == "precious"


def test_for_a_user_without_rights(
    control_plane: ControlPlane, served: ServedStorage, restricted_user: TokenUser
) -> None:
    """A 403 names the command that prints the claim; the printed claim gets the data when another user creates it."""
    name = archive(served, served.export.root, served.own_class(), "old", text="bytes")
    role = f"reader-{served.namespace}"
    rules = [
        {"apiGroups": ["storage.k8s.io"], "resources": ["storageclasses"], "verbs": ["list"]},
        {"apiGroups": [""], "resources": ["persistentvolumeclaims", "namespaces"], "verbs": ["get"]},
    ]
    rbac = "/apis/rbac.authorization.k8s.io/v1"
    subject = {"kind": "User", "name": restricted_user.name, "apiGroup": "rbac.authorization.k8s.io"}
    reference = {"kind": "ClusterRole", "name": role, "apiGroup": "rbac.authorization.k8s.io"}
    served.api.post(f"{rbac}/clusterroles", {"metadata": {"name": role}, "rules": rules})
    binding = {"metadata": {"name": role}, "roleRef": reference, "subjects": [subject]}
    served.api.post(f"{rbac}/clusterrolebindings", binding)
    words = (served.export.flag, name, f"--claim={served.namespace}/new")
    kubeconfig = control_plane.kubeconfig_for(restricted_user)
    try:
        done = served.eventually(
            lambda: next(
                (
                    each
                    for each in [command(control_plane, "restore", served.provisioner, *words, kubeconfig=kubeconfig)]
                    if "persistentvolumeclaims" in each.stderr
                ),
                None,
            ),
            "the role counts",
        )
        assert done.returncode == 1
        printing = f"nfs-provisioner restore {name} --claim {served.namespace}/new -o yaml | kubectl apply -f -"
        assert printing in done.stderr
        printed = command(control_plane, "restore", served.provisioner, *words, "-o", "yaml", kubeconfig=kubeconfig)
        assert printed.returncode == 0, printed.stderr
    finally:
        served.api.delete(f"{rbac}/clusterrolebindings/{role}")
        served.api.delete(f"{rbac}/clusterroles/{role}")
    served.api.post(served.claims, yaml.safe_load(printed.stdout))
    assert text_of(served, served.export.root, "new") == "bytes"
    again = command(control_plane, "restore", served.provisioner, *words, "-o", "yaml")
    assert (again.returncode, again.stdout) == (1, "")


def test_deleting_one_archive(control_plane: ControlPlane, served: ServedStorage) -> None:
    """`archives --delete` only says what it would do; with `--yes` the archive goes, also one without a record."""
    root, class_name = served.export.root, served.own_class()
    name, other = (archive(served, root, class_name, claim) for claim in ("first", "second"))
    bare = f"archived-bare-{served.namespace}"
    (root / bare).mkdir()
    (root / bare / "old").touch()
    flags = (served.export.flag, "--delete")
    dry = command(control_plane, "archives", served.provisioner, *flags, name)
    assert dry.returncode == 0, dry.stderr
    assert f"archive {name} on export {served.export.location} (claim {served.namespace}/first, 1Mi" in dry.stdout
    assert "would be deleted" in dry.stdout
    assert "add --yes" in dry.stderr
    assert {name, other, bare} <= names(root)
    for each in (name, bare):
        done = command(control_plane, "archives", served.provisioner, *flags, each, "--yes")
        assert done.returncode == 0, done.stderr
        assert "deleted" in done.stdout
    # The daemon looks at the trash once per minute.
    served.eventually(lambda: not served.export.trash, "the daemon purges the trash", timeout_s=90)
    assert other in names(root)
    assert not {name, bare} & names(root)
    assert name not in records(root)
    gone = command(control_plane, "archives", served.provisioner, *flags, name, "--yes")
    assert (gone.returncode, gone.stdout) == (1, "")
    served.claim(served.own_class({"minFree": "100%"}), "waiting", metadata={"annotations": {RESTORE: other}})
    kept = command(control_plane, "archives", served.provisioner, *flags, other, "--yes")
    assert (kept.returncode, "asks for it" in kept.stderr) == (1, True)
    assert command(control_plane, "archives", served.provisioner, "--yes").returncode == 2
    assert other in names(root)


def test_no_provisioner_runs(
    control_plane: ControlPlane, daemon: Daemons, storage: Storage, export_directory: Path
) -> None:
    """Without a provisioner the command says so and stops waiting; the claim still gets the data when one starts."""
    started = start(daemon, export_directory)
    name = archive(storage, export_directory, archive_class(storage, started))
    started.stop()
    flag, claim = f"--export=nas.example:/x={export_directory}", f"--claim={storage.namespace}/new"
    done = command(control_plane, "restore", started.provisioner_name, flag, name, claim, "--timeout=3s")
    assert done.returncode == 1
    assert "has responded: check that it is running" in done.stderr
    started.start()
    assert text_of(storage, export_directory, "new") == "precious"
