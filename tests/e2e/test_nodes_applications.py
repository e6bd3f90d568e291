"""Applications on real nodes: a database, ten web servers with one volume, a StatefulSet."""

from __future__ import annotations

import json
from functools import partial

import pytest

from testbed.api import Object
from tests.e2e.containers import PROVISIONER
from tests.e2e.databases import database, sql
from tests.e2e.stories import IDLE, MARIADB_10_11, MARIADB_11_8, NGINX, Story, config_map, pod_spec, service, workload

pytestmark = pytest.mark.timeout(3600)

TABLES = """
CREATE DATABASE shop;
USE shop;
CREATE TABLE shop.orders (id INT PRIMARY KEY, what VARCHAR(40)) ENGINE=InnoDB;
INSERT INTO shop.orders SELECT seq, CONCAT('order ', seq) FROM seq_1_to_2000;
CREATE TABLE shop.notes (id INT PRIMARY KEY, what TEXT) ENGINE=Aria;
INSERT INTO shop.notes VALUES (1, 'written by 10.11');
"""
SEEN = """
SELECT COUNT(*), MAX(what) FROM shop.orders;
SELECT what FROM shop.notes;
CHECKSUM TABLE shop.orders, shop.notes;
"""

SERVERS = 10
NGINX_CONF = """
daemon off;
pid /tmp/nginx.pid;
error_log stderr;
events {}
http {
    access_log off;
    client_body_temp_path /tmp/body;
    proxy_temp_path /tmp/proxy;
    fastcgi_temp_path /tmp/fastcgi;
    uwsgi_temp_path /tmp/uwsgi;
    scgi_temp_path /tmp/scgi;
    server {
        listen 8080;
        root /srv;
        location / { dav_methods PUT; }
    }
}
"""
UPLOAD = """
import sys, urllib.request
place, text = sys.argv[1:]
urllib.request.urlopen(urllib.request.Request(place, method="PUT", data=text.encode()), timeout=60)
"""
DOWNLOAD = """
import json, sys, urllib.request
print(json.dumps([urllib.request.urlopen(place, timeout=60).read().decode() for place in sys.argv[1:]]))
"""


@pytest.mark.thorough
def test_mariadb(story: Story) -> None:
    """MariaDB 10.11 writes tables to a claim, and 11.8 upgrades and reads them on the same claim."""
    story.claim("databases", size="1Gi", accessModes=["ReadWriteOnce"])
    with story.timed("MariaDB 10.11 on a new claim: from its pod to ready"):
        story.start("db", database(MARIADB_10_11))
    assert sql(story, "db", "SELECT VERSION()").startswith("10.11.")
    sql(story, "db", TABLES)
    written = sql(story, "db", SEEN)
    assert written.splitlines()[:2] == ["2000\torder 999", "written by 10.11"]
    with story.timed("MariaDB 10.11: its pod deleted"):
        story.delete_pod("db")
    with story.timed("MariaDB 11.8 on the same claim: from its pod to ready"):
        story.start("db", database(MARIADB_11_8))
    with story.timed("MariaDB 11.8: mariadb-upgrade"):
        assert story.run("db", "mariadb-upgrade", "--user=mysql").rstrip().endswith("OK")
    assert sql(story, "db", "SELECT VERSION()").startswith("11.8.")
    assert sql(story, "db", SEEN) == written
    sql(story, "db", "INSERT INTO shop.notes VALUES (2, 'written by 11.8')")
    assert sql(story, "db", "SELECT COUNT(*) FROM shop.notes").strip() == "2"


def web_servers() -> Object:
    """Return ten nginx servers on both nodes, with pages on the claim `pages`, that accept uploads."""
    spread = {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "web"}},
    }
    spec = pod_spec(
        *(NGINX, "nginx", "-c", "/etc/web/nginx.conf"),
        claims={"/srv": "pages"},
        configs={"/etc/web": "web"},
        scratch=["/tmp"],
        ready={"tcpSocket": {"port": 8080}},
        topologySpreadConstraints=[spread],
    )
    return workload("Deployment", "web", spec, replicas=SERVERS)


@pytest.mark.thorough
def test_ten_web_servers(story: Story) -> None:
    """Ten web servers on two nodes all serve a file that one of them received, and its next version."""
    story.claim("nfs-client", "pages", size="1Gi")
    story.apply(config_map("web", {"nginx.conf": NGINX_CONF}), service("web", 8080))
    with story.timed(f"{SERVERS} web servers on one claim: from their Deployment to ready"):
        story.apply(web_servers())
        servers = story.ready("web", SERVERS)
    assert len({each["spec"]["nodeName"] for each in servers}) == 2
    story.start("visitor", pod_spec(PROVISIONER, *IDLE, uid=2000))
    addresses = [each["status"]["podIP"] for each in servers]
    places = [f"http://{each}:8080/page.txt" for each in (*addresses, story.cluster_ip("web"))]

    def all_serve(text: str) -> bool:
        answers = story.run("visitor", "python3", "-c", DOWNLOAD, *places)
        return bool(json.loads(answers) == [text] * len(places))

    for number, place in enumerate((places[0], places[SERVERS - 1]), start=1):
        text = f"upload {number}"
        with story.timed(f"{text} of a page through one server, and its download from all"):
            story.run("visitor", "python3", "-c", UPLOAD, place, text)
            story.eventually(partial(all_serve, text), f"all serve {text}", timeout_s=120)


@pytest.mark.thorough
def test_stateful_set(story: Story) -> None:
    """The three pods of a StatefulSet keep their data when it is scaled down to one and up again."""
    template = {
        "metadata": {"name": "data"},
        "spec": {
            "storageClassName": "nfs-client",
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "100Mi"}},
        },
    }
    spec = pod_spec(NGINX, *IDLE, claims={"/data": "data"})
    fields = {"serviceName": "members", "replicas": 3, "volumeClaimTemplates": [template]}
    with story.timed("StatefulSet of three: to ready, one after another"):
        story.apply(service("members", 80), workload("StatefulSet", "members", spec, **fields))
        members = [each["metadata"]["name"] for each in story.ready("members", 3)]
    for name in members:
        story.shell(name, "echo I am $(hostname) > /data/who")
    claims = {name: story.get_claim(f"data-{name}")["spec"]["volumeName"] for name in members}
    assert len(set(claims.values())) == 3
    with story.timed("StatefulSet of three: scaled down to one"):
        story.scale("statefulsets", "members", 1)
        story.eventually(lambda: len(story.pods("members")) == 1, "one is left", timeout_s=300)
    with story.timed("StatefulSet of one: scaled up to three"):
        story.scale("statefulsets", "members", 3)
        story.ready("members", 3)
    assert [story.shell(name, "cat /data/who") for name in members] == [f"I am {name}" for name in members]
    assert {name: story.get_claim(f"data-{name}")["spec"]["volumeName"] for name in members} == claims
