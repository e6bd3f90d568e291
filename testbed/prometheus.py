"""Prometheus from Debian's package: a server on loopback, and promtool."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from testbed import packages
from testbed.binaries import Progress, silent
from testbed.processes import Server, free_port

PACKAGES = ("prometheus",)


class QueryRefused(Exception):
    """Prometheus cannot evaluate a query; the text contains the query and the error."""


@dataclass(frozen=True, slots=True)
class Series:
    """A time series: its labels, and its samples as (seconds since 1970, value)."""

    labels: Mapping[str, str]
    samples: Sequence[tuple[float, float]]


class Prometheus(Server):
    """A Prometheus server; see Server for start, stop and the context."""

    def __init__(
        self,
        targets: Mapping[str, Mapping[str, str]],
        directory: Path,
        *,
        scrape_interval_s: int = 5,
        rules: Mapping[str, Any] | None = None,
    ) -> None:
        """Scrape /metrics of each HOST:PORT in `targets`, which maps it to its labels.

        `job` can be one of the labels. `rules` has the form of the `spec` of a PrometheusRule. The directory contains
        configuration, data and log.
        """
        self.port = free_port()
        self.configuration = directory / "prometheus.yaml"
        self.scrape_interval_s = scrape_interval_s
        # JSON is valid YAML.
        (directory / "rules.yaml").write_text(json.dumps(dict(rules or {"groups": []})))
        interval = f"{scrape_interval_s}s"
        scraped = [{"targets": [address], "labels": dict(labels)} for address, labels in targets.items()]
        body = {
            "global": {"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval},
            "rule_files": ["rules.yaml"],
            "scrape_configs": [{"job_name": "scraped", "static_configs": scraped}],
        }
        self.configuration.write_text(json.dumps(body))
        command = [
            "prometheus",
            f"--config.file={self.configuration}",
            f"--storage.tsdb.path={directory / 'data'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
            "--log.level=warn",
        ]
        super().__init__("prometheus", command, log=directory / "prometheus.log", ready=self._is_ready)

    def query(self, expression: str) -> list[Series]:
        """Return each series with its current value.

        Raises QueryRefused, or OSError if the server does not answer.
        """
        found = self._ask("query", query=expression)["result"]
        return [Series(each["metric"], _samples([each["value"]])) for each in found]

    def query_range(self, expression: str, *, start_s: float, end_s: float, step_s: float) -> list[Series]:
        """Return the series of a time range in seconds since 1970, one sample per step.

        Raises as `query`.
        """
        found = self._ask("query_range", query=expression, start=start_s, end=end_s, step=step_s)["result"]
        return [Series(each["metric"], _samples(each["values"])) for each in found]

    def rules(self) -> list[dict[str, Any]]:
        """Return every rule with its health and last error.

        The health is "ok", "err", or "unknown" before the first evaluation.
        """
        return [rule for group in self._ask("rules")["groups"] for rule in group["rules"]]

    def unscraped(self) -> list[str]:
        """Return the targets that were not scraped successfully yet, each with the reason."""
        targets = self._ask("targets", state="active")["activeTargets"]
        return [f"{each['scrapeUrl']}: {each['lastError']}" for each in targets if each["health"] != "up"]

    def _is_ready(self) -> bool:
        try:
            with _opener().open(f"http://127.0.0.1:{self.port}/-/ready", timeout=2.0):
                return True
        except OSError:
            return False

    def _ask(self, what: str, **query: str | float) -> dict[str, Any]:
        url = f"http://127.0.0.1:{self.port}/api/v1/{what}?{urllib.parse.urlencode(query)}"
        try:
            with _opener().open(url, timeout=30.0) as answer:
                return cast(dict[str, Any], json.load(answer)["data"])
        except urllib.error.HTTPError as exc:
            with exc:
                raise QueryRefused(f"{query.get('query', what)}: {exc.read().decode(errors='replace')[:1000]}") from exc


def promtool(*words: str | Path, input: str | None = None) -> str:
    """Run promtool and return its complaints, or "" if it has none."""
    done = subprocess.run(["promtool", *words], input=input, capture_output=True, text=True, timeout=60)
    return "" if done.returncode == 0 else (done.stdout + done.stderr).strip() or f"exit status {done.returncode}"


def missing() -> str:
    """Return why Prometheus or promtool is missing, or ""."""
    found = all(shutil.which(name) for name in ("prometheus", "promtool"))
    return "" if found else "prometheus and promtool are missing: run apt-get install " + " ".join(PACKAGES)


def install_prometheus(progress: Progress = silent) -> None:
    """Install both if they are missing. Raises packages.NotInstalled."""
    if missing():
        packages.install(PACKAGES, progress)


def _opener() -> urllib.request.OpenerDirector:
    # Ignore proxies of the environment: the server is on loopback.
    return urllib.request.build_opener(urllib.request.ProxyHandler({}))


def _samples(values: Sequence[tuple[float, str]]) -> list[tuple[float, float]]:
    return [(float(at), float(value)) for at, value in values]
