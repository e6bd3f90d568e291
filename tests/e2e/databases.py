"""MariaDB in the pods of stories, and sessions that stay open."""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from testbed.api import Object
from tests.e2e.installed import MYSQL_UID
from tests.e2e.stories import Story, pod_spec

_CLIENT = ("mariadb", "--skip-column-names")
_SERVER = """
test -d /var/lib/mysql/mysql || mariadb-install-db --auth-root-socket-user=mysql --skip-test-db
exec mariadbd --innodb-buffer-pool-size=64M --innodb-log-file-size=16M
"""


def database(image: str, claim: str = "data") -> Object:
    """Return a pod's spec for MariaDB with its data on a claim."""
    return pod_spec(
        *(image, "sh", "-ec", _SERVER),
        uid=MYSQL_UID,
        claims={"/var/lib/mysql": claim},
        scratch=["/run/mysqld", "/tmp"],
        ready={"exec": {"command": ["mariadb-admin", "ping"]}},
    )


def sql(story: Story, pod: str, statements: str) -> str:
    """Run SQL in the MariaDB of a pod and return its output."""
    return story.run(pod, *_CLIENT, input=statements.encode())


class Session:
    """An open session: its locks last until it ends."""

    def __init__(self, client: subprocess.Popen[str]) -> None:
        self._client = client

    def run(self, statements: str) -> str:
        """Run SQL and return its output. Raises RuntimeError if a statement fails, which ends the session."""
        end = f"end-{secrets.token_hex(8)}"
        self.send(f"{statements.rstrip().removesuffix(';')};\nSELECT '{end}';\n")
        assert self._client.stdout is not None
        lines: list[str] = []
        for line in self._client.stdout:
            if line.rstrip() == end:
                return "".join(lines)
            lines.append(line)
        raise RuntimeError(f"the session ended: {statements}\n{''.join(lines)}")

    def send(self, text: str) -> None:
        """Write to the client without waiting for its output."""
        assert self._client.stdin is not None
        self._client.stdin.write(text)
        self._client.stdin.flush()


@contextmanager
def session(story: Story, pod: str, *flags: str) -> Iterator[Session]:
    """Open a session with the MariaDB of a pod."""
    with story.cluster.opened(story.namespace, pod, *_CLIENT, "--unbuffered", *flags) as client:
        yield Session(client)
