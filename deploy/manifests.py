"""`make manifests`: render the chart into deploy/base, a kustomize base, and its rules into deploy/monitoring."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import yaml

from testbed.helm import Helm

ROOT = Path(__file__).parents[1]
BASE = ROOT / "deploy" / "base"
MONITORING = ROOT / "deploy" / "monitoring"

NAME = "nfs-provisioner"
CHART = ROOT / "charts" / NAME
HELMS_OWN = ("app.kubernetes.io/managed-by", "helm.sh/chart")
"""Labels that mark an object as managed by Helm, which is wrong here."""

NOTICE = "# Rendered from charts/nfs-provisioner by `make manifests`: change the chart, not this file.\n"
NAMESPACE = {
    "apiVersion": "v1",
    "kind": "Namespace",
    "metadata": {"name": NAME, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
}

Object = dict[str, Any]


def rendered(helm: Helm) -> dict[str, str]:
    """Return the files of the base as text by name. Raises HelmFailed."""
    values = ROOT / "deploy" / "values.yaml"
    said = helm.run("template", NAME, CHART, f"--namespace={NAME}", "--no-hooks", f"--values={values}")
    objects: list[Object] = [NAMESPACE, *(each for each in yaml.safe_load_all(said) if each)]
    files: dict[str, list[Object]] = {}
    for each in objects:
        files.setdefault(f"{each['kind'].lower()}.yaml", []).append(_plain(each))
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": NAME,
        "resources": sorted(files),
    }
    files["kustomization.yaml"] = [kustomization]
    return {name: NOTICE + yaml.safe_dump_all(found, sort_keys=False, width=120) for name, found in files.items()}


def monitoring(helm: Helm) -> dict[str, str]:
    """Return the files for a Prometheus and a Grafana without operators as text by name. Raises HelmFailed."""
    flags = ("--set=nfs.server=nas.example", "--set=prometheusRule.enabled=true")
    shown = "--show-only=templates/prometheusrule.yaml"
    rule = yaml.safe_load(helm.run("template", NAME, CHART, f"--namespace={NAME}", *flags, shown))
    return {
        "rules.yaml": NOTICE + yaml.safe_dump(rule["spec"], sort_keys=False, width=120),
        "dashboard.json": (CHART / "dashboards" / f"{NAME}.json").read_text(),
    }


def write(helm: Helm) -> None:
    """Write the base and the rules as the chart renders them, and remove stale files of the base."""
    BASE.mkdir(parents=True, exist_ok=True)
    files = rendered(helm)
    for stale in {path.name for path in BASE.iterdir()} - set(files):
        (BASE / stale).unlink()
    for name, text in files.items():
        (BASE / name).write_text(text)
    for name, text in monitoring(helm).items():
        (MONITORING / name).write_text(text)


def _plain(body: Object) -> Object:
    labels = body["metadata"].get("labels", {})
    kept = {key: value for key, value in labels.items() if key not in HELMS_OWN}
    return body | {"metadata": body["metadata"] | ({"labels": kept} if kept else {})}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="helm-") as home:
        write(Helm(Path(home)))
