"""core.objects: what is read from claims and volumes."""

from __future__ import annotations

import pytest

from provisioner.core import names
from provisioner.core.objects import Claim, ClaimSpec, NfsSource, Volume
from tests.support import samples


@pytest.mark.parametrize("key", names.PROVISIONER_ANNOTATIONS)
def test_claim_is_ours(key: str) -> None:
    """Either of the cluster's two annotations assigns a claim to the provisioner."""
    assert samples.claim(provisioner="", annotations={key: samples.US}).is_for(samples.US)


@pytest.mark.parametrize("annotations", [{}, {names.PROVISIONER_ANNOTATIONS[0]: "other/one"}])
def test_claim_is_not_ours(annotations: dict[str, str]) -> None:
    """A claim without such an annotation is not the provisioner's."""
    assert not samples.claim(provisioner="", annotations=annotations).is_for(samples.US)


@pytest.mark.parametrize(
    ("annotation", "spec", "name"), [("old", "new", "old"), ("", "new", "new"), ("", None, ""), ("old", None, "old")]
)
def test_class_name(annotation: str, spec: str | None, name: str) -> None:
    """The old annotation names a claim's class before its spec does."""
    annotations = {names.CLASS_ANNOTATION: annotation} if annotation else {}
    claim = samples.claim(annotations=annotations, spec=ClaimSpec(storage_class_name=spec))
    assert claim.class_name == name


def test_sizes_and_key() -> None:
    """Sizes are read as written, a missing one as "", and a claim's key is NAMESPACE/NAME."""
    assert (samples.claim().requested, samples.claim().key, samples.claim().uid) == ("1Gi", "shop/data", samples.UID)
    assert samples.volume().capacity == "1Gi"
    assert Claim().requested == Volume().capacity == ""


def test_volume_is_ours() -> None:
    """A volume's annotation names its provisioner."""
    assert samples.volume().is_by(samples.US)
    assert not Volume().is_by(samples.US)


@pytest.mark.parametrize(
    ("volume", "source"),
    [
        pytest.param(samples.volume(), samples.SOURCE, id="NFS"),
        pytest.param(Volume(), None, id="neither"),
        pytest.param(
            samples.csi_volume({"server": "nas", "share": "/exports/", "subdir": "a/b"}),
            NfsSource("nas", "/exports/a/b"),
            id="csi-driver-nfs",
        ),
        pytest.param(
            samples.csi_volume({"Server": "nas", "SHARE": "/", "subDir": "a"}), NfsSource("nas", "/a"), id="any case"
        ),
        pytest.param(
            samples.csi_volume({"server": "nas", "share": "/exports"}), NfsSource("nas", "/exports/"), id="whole share"
        ),
        pytest.param(samples.csi_volume({"server": "nas"}), None, id="no share"),
        pytest.param(samples.csi_volume({"share": "/exports"}), None, id="no server"),
        pytest.param(samples.csi_volume({"server": "n", "share": "/e"}, driver="another"), None, id="another driver"),
    ],
)
def test_source(volume: Volume, source: NfsSource | None) -> None:
    """A volume's place comes from its NFS source or its attributes for csi-driver-nfs."""
    assert volume.source == source


def test_marks() -> None:
    """A volume of this provisioner has its annotations; one of nfs-subdir has none, even with the same name."""
    assert samples.volume().is_marked
    assert not samples.peers_volume().is_marked
    assert all(samples.peers_volume(annotations={key: ""}).is_marked for key in names.MARKS)


def test_names() -> None:
    """The name of volumes and classes is that of their metadata."""
    assert samples.volume().name == samples.VOLUME
    assert samples.storage_class().name == "nfs"
