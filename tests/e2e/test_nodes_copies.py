"""Copies of a database on real nodes, made as the how-to pages say: a snapshot and clones."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import yaml

from testbed import snapshots
from testbed.api import Object
from tests.e2e.databases import database, session, sql
from tests.e2e.installed import Installed
from tests.e2e.stories import MARIADB_11_8, Story, service, workload
from tests.support.archiving import directory
from tests.support.pages import blocks, section

pytestmark = pytest.mark.timeout(3600)

CLONES, SNAPSHOTS = "how-to/clones.md", "how-to/snapshots.md"
CLASS = "databases"
COPY_S = 900.0

TABLES = """
CREATE DATABASE shop;
CREATE TABLE shop.orders (id INT PRIMARY KEY, what VARCHAR(200)) ENGINE=InnoDB;
CREATE TABLE shop.notes (id INT PRIMARY KEY, what TEXT) ENGINE=Aria;
"""
WRITER = """
FOR n IN 1..1000000000 DO
    INSERT INTO shop.orders VALUES (n, REPEAT(n, 20));
    INSERT INTO shop.notes VALUES (n, REPEAT(n, 20));
    DO SLEEP(0.01);
END FOR //
"""
"""Each INSERT is a transaction of its own."""

SEEN = """
SELECT COUNT(*), MIN(id), MAX(id), SUM(CRC32(what)) FROM shop.orders;
SELECT COUNT(*), MIN(id), MAX(id), SUM(CRC32(what)) FROM shop.notes;
"""


@pytest.fixture(scope="module")
def snapshot_controller(installed: Installed) -> Iterator[None]:
    """The stock snapshot-controller, its CRDs, and a class for the release."""
    with installed.snapshots():
        yield


def manifest(page: str, name: str) -> Object:
    """Return a page's object of that name; a claim gets the story's class and size."""
    documents = (each for block in blocks("yaml") if block.page == page for each in yaml.safe_load_all(block.text))
    # A page can show a claim of that name a second time, with an annotation.
    found = next(each for each in documents if each["metadata"]["name"] == name)
    if found["kind"] == "PersistentVolumeClaim":
        found["spec"] |= {"storageClassName": CLASS, "resources": {"requests": {"storage": "1Gi"}}}
    return dict(found)


def count(story: Story) -> int:
    """Return the number of rows in the running database."""
    return int(sql(story, "db-0", "SELECT COUNT(*) FROM shop.orders"))


def follow(story: Story, page: str, start: str) -> None:
    """Run the command of a page that begins so, in the story's namespace."""
    found = re.search(rf"kubectl {re.escape(start)}[^`\n]*", section(page))
    assert found, f"{page} has no command {start}"
    words = [story.namespace if word == "shop" else word for word in shlex.split(found[0])[1:]]
    story.cluster.kubectl(*words, timeout_s=COPY_S)


def rows(output: str) -> int:
    """Return the number of orders that SEEN shows, after a check that each table has the rows 1 to N without a gap."""
    counts = [[int(each) for each in line.split("\t")[:3]] for line in output.splitlines()]
    assert all(count == last and first == 1 for count, first, last in counts)
    orders, notes = (count for count, _, _ in counts)
    # A lock can fall between the two statements of a round.
    assert orders - notes in (0, 1)
    return orders


def files(story: Story) -> dict[str, tuple[int, int]]:
    """Return the size and the time of each file of MariaDB on the server."""
    place = directory(story.cluster.export, story.bound())
    found = {str(each.relative_to(place)): each.stat() for each in place.rglob("*") if each.is_file()}
    return {name: (seen.st_size, seen.st_mtime_ns) for name, seen in found.items()}


@contextmanager
def locked(story: Story, what: str) -> Iterator[str]:
    """Lock the tables with the SQL of the page; yield what SEEN shows. No file is written under the lock."""
    lock, unlock = (block.text for block in blocks("sql") if block.page == CLONES)
    *first, status = lock.strip().splitlines()
    with session(story, "db-0") as held:
        with story.timed(f"MariaDB under load: locked, with nothing left to write, for {what}"):
            held.run("\n".join(first))
            story.eventually(
                lambda: held.run(status).split() == ["Innodb_buffer_pool_pages_dirty", "0"],
                "InnoDB has nothing to write",
                timeout_s=300,
            )
        seen = held.run(SEEN)
        before = files(story)
        yield seen
        assert held.run(SEEN) == seen
        assert files(story) == before
        held.run(unlock)
    story.eventually(lambda: count(story) > rows(seen), "the writer goes on", timeout_s=120)


def read_copy(story: Story, claim: str) -> str:
    """Start a second MariaDB on a copy, check its tables, and return what SEEN shows."""
    with story.timed(f"MariaDB on the claim {claim}: from its pod to ready"):
        story.start(claim, database(MARIADB_11_8, claim))
    checked = sql(story, claim, "CHECK TABLE shop.orders, shop.notes EXTENDED")
    assert [line.split("\t")[1:] for line in checked.splitlines()] == [["check", "status", "OK"]] * 2
    assert "[ERROR]" not in story.cluster.logs(story.namespace, claim)
    seen = sql(story, claim, SEEN)
    story.delete_pod(claim)
    return seen


@pytest.mark.thorough
@pytest.mark.usefixtures("snapshot_controller")
def test_a_database(story: Story) -> None:
    """A snapshot and a clone under lock have all rows from before the lock and none from after it.

    So has a clone of the stopped database. The writer inserts rows all the time, except under lock.
    """
    story.claim(CLASS, size="1Gi", accessModes=["ReadWriteOnce"])
    spec = database(MARIADB_11_8)
    story.apply(service("db", 3306), workload("StatefulSet", "db", spec, serviceName="db", replicas=1))
    story.ready("db")
    sql(story, "db-0", TABLES)
    with session(story, "db-0", "--delimiter=//") as writer:
        writer.send(WRITER)
        story.eventually(lambda: count(story) > 500, "the writer writes", timeout_s=300)
        with locked(story, "a snapshot") as in_snapshot, story.timed("a snapshot of MariaDB's claim: to ready"):
            story.apply(manifest(SNAPSHOTS, "before-upgrade"))
            follow(story, SNAPSHOTS, "wait -n shop volumesnapshot/before-upgrade")
        with locked(story, "a clone") as in_clone, story.timed("a clone of MariaDB's claim: to Bound"):
            story.apply(manifest(CLONES, "data-copy"))
            follow(story, CLONES, "wait pvc/data-copy")
        with story.timed("a claim from the snapshot: to Bound"):
            story.apply(manifest(SNAPSHOTS, "data-before-upgrade"))
            story.bound("data-before-upgrade", timeout_s=COPY_S)
        assert read_copy(story, "data-before-upgrade") == in_snapshot
        assert read_copy(story, "data-copy") == in_clone
        assert rows(in_snapshot) < rows(in_clone) < count(story)
        follow(story, CLONES, "scale statefulset db")
    story.eventually(lambda: not story.pods("db"), "MariaDB is stopped", timeout_s=300)
    with story.timed("a clone of the stopped MariaDB's claim: to Bound"):
        story.apply(manifest(CLONES, "data-copy") | {"metadata": {"name": "data-stopped"}})
        story.bound("data-stopped", timeout_s=COPY_S)
    in_stopped = read_copy(story, "data-stopped")
    assert rows(in_stopped) > rows(in_clone)
    story.scale("statefulsets", "db", 1)
    story.ready("db")
    assert sql(story, "db-0", SEEN) == in_stopped
    story.cluster.kubectl("delete", "volumesnapshot", "before-upgrade", f"--namespace={story.namespace}")
    contents = f"/apis/{snapshots.GROUP}/v1/volumesnapshotcontents"
    story.eventually(lambda: not story.api.list(contents), "the snapshot's content is gone", timeout_s=300)
