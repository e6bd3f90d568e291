"""`nfs-provisioner usage` on a real cluster and an export on disk."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest

from testbed.cluster import ControlPlane
from tests.integration.conftest import Service
from tests.support.archiving import command
from tests.support.storage import ServedStorage
from tests.support.written_answers import WrittenAnswers

pytestmark = pytest.mark.timeout(180)


def test_who_uses_most(control_plane: ControlPlane, served: ServedStorage, service: Service) -> None:
    """Volumes are counted by a walk or by the agent's answer, and the largest comes first."""
    sizes = {"small": 10_000, "large": 2_000_000}
    for name, size in sizes.items():
        directory = served.directory(served.volume(name=name)) / "inner"
        directory.mkdir()
        (directory / "file").write_bytes(b"x" * size)
    answered = served.volume({"quota": "preferred"}, "answered")
    flags = (served.export.flag, f"--namespace={served.namespace}")

    def rows(*more: str) -> list[dict[str, object]]:
        done = command(control_plane, "usage", served.provisioner, *flags, "-o", "json", *more)
        assert done.returncode in (0, 1), done.stderr
        found: list[dict[str, object]] = json.loads(done.stdout)
        return found

    large, small, empty = rows()
    assert [each["claim"] for each in (large, small, empty)] == ["large", "small", "answered"]
    assert large["files"] == 3
    assert isinstance(large["used_bytes"], int)
    assert sizes["large"] <= large["used_bytes"] < 2 * sizes["large"]
    assert (large["source"], large["complete"]) == ("walk", True)
    assert [each["claim"] for each in rows("--top=1")] == ["large"]
    assert {each["claim"] for each in rows("--sort-by=claim", "--top=2")} == {"answered", "large"}

    agent = WrittenAnswers(service.export.root)
    agent.fill(answered, 100, limit_bytes=1 << 20)
    by_claim = {each["claim"]: each for each in rows("--no-walk")}
    assert by_claim["answered"]["source"] == "agent"
    assert by_claim["answered"]["used_bytes"] == 1 << 20
    assert by_claim["large"]["used_bytes"] is None
    table = command(control_plane, "usage", served.provisioner, *flags).stdout.splitlines()
    assert table[0].split() == ["NAMESPACE", "CLAIM", "USED", "FILES", "CAPACITY", "USE%"]
    assert len(table) == 4


def test_interrupted(control_plane: ControlPlane, served: ServedStorage) -> None:
    """A walk that is interrupted, or runs out of time, prints what it has counted."""
    directory = served.directory(served.volume(name="many"))
    for number in range(50):
        (directory / str(number)).mkdir()
    flags = (served.export.flag, f"--namespace={served.namespace}", "--rate=1", "-o", "json")
    out_of_time = command(control_plane, "usage", served.provisioner, *flags, "--budget=3s")
    assert out_of_time.returncode == 1
    (row,) = json.loads(out_of_time.stdout)
    assert row["used_bytes"] is not None
    assert not row["complete"]
    served.volume(name="few")
    state = served.export.root.parent / "counted.json"
    resume = (f"--namespace={served.namespace}", served.export.flag, "-o", "json", f"--resume={state}")
    first = command(control_plane, "usage", served.provisioner, *resume, "--budget=20s", "--rate=10")
    assert state.exists() is not all(each["complete"] for each in json.loads(first.stdout))
    second = command(control_plane, "usage", served.provisioner, *resume)
    assert all(each["complete"] for each in json.loads(second.stdout))
    assert not state.exists()
    state.write_text("{")
    assert command(control_plane, "usage", served.provisioner, *resume).returncode == 2
    words = [sys.executable, "-m", "provisioner", "usage", f"--kubeconfig={control_plane.kubeconfig}"]
    words += [f"--provisioner-name={served.provisioner}", *flags]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as walking:
        assert walking.stderr is not None
        while "files" not in walking.stderr.readline():
            pass
        walking.send_signal(signal.SIGINT)
        output, errors = walking.communicate(timeout=30)
    assert walking.returncode == 130
    assert json.loads(output)[0]["used_bytes"] is not None
    assert "Traceback" not in errors
