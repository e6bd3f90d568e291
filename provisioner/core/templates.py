"""Path templates such as `${.PVC.namespace}/${.PVC.name}`, in nfs-subdir's and in csi-driver-nfs's spelling."""

from __future__ import annotations

import re
from dataclasses import dataclass

from provisioner.core.errors import InvalidPath, InvalidSettings
from provisioner.core.locations import Path
from provisioner.core.objects import Claim
from provisioner.core.paths import check, shorten

DEFAULT_PATTERN = "${.PVC.namespace}-${.PVC.name}-${.PV.name}"

_FIELDS = {
    ".PVC.namespace": "namespace",
    ".PVC.name": "name",
    ".PV.name": "volume",
    "pvc.metadata.namespace": "namespace",
    "pvc.metadata.name": "name",
    "pv.metadata.name": "volume",
}
_MAPS = {".PVC.labels.": "labels", ".PVC.annotations.": "annotations"}
_KNOWN = "${.PVC.namespace}, ${.PVC.name}, ${.PVC.labels.KEY}, ${.PVC.annotations.KEY}, ${.PV.name}"
_VARIABLE = re.compile(r"\$\{([^{}]*)\}")


@dataclass(frozen=True, slots=True)
class Variable:
    """One `${…}`: `source` is namespace, name, volume, labels or annotations; `key` belongs to the last two."""

    text: str
    source: str
    key: str
    fallback: str | None


@dataclass(frozen=True, slots=True)
class Template:
    """A parsed path template: literal texts and variables in turn."""

    text: str
    pieces: tuple[str | Variable, ...]

    def render(self, claim: Claim, volume: str) -> Path:
        """The directory for a claim. Raises InvalidPath for a missing key or a result that breaks a path rule.

        Only the default pattern is ever shortened: a user's pattern that is too long is refused, since a cut name may
        be another volume's.
        """
        if self.text == DEFAULT_PATTERN:
            meta = claim.metadata
            return check(shorten(f"{meta.namespace}-", meta.name, f"-{volume}"))
        return check("".join(p if isinstance(p, str) else _value(p, claim, volume) for p in self.pieces))


def parse(text: str) -> Template:
    """The template of a text. Raises InvalidSettings that names the piece which cannot be used."""
    if not text:
        raise InvalidSettings("it is empty")
    pieces: list[str | Variable] = []
    position = 0
    for match in _VARIABLE.finditer(text):
        pieces.append(text[position : match.start()])
        pieces.append(_variable(match.group(1)))
        position = match.end()
    pieces.append(text[position:])
    if any(isinstance(piece, str) and "${" in piece for piece in pieces):
        raise InvalidSettings(f"{text!r} has a '${{' that is not closed")
    return Template(text, tuple(piece for piece in pieces if piece != ""))


def _variable(inside: str) -> Variable:
    name, separator, fallback = inside.partition(":-")
    text = f"${{{inside}}}"
    if name in _FIELDS:
        return Variable(text, _FIELDS[name], "", fallback if separator else None)
    for prefix, source in _MAPS.items():
        if name.startswith(prefix) and len(name) > len(prefix):
            return Variable(text, source, name.removeprefix(prefix), fallback if separator else None)
    raise InvalidSettings(f"{text} is unknown; known are {_KNOWN}, each also as ${{…:-fallback}}")


def _value(variable: Variable, claim: Claim, volume: str) -> str:
    meta = claim.metadata
    fields = {"namespace": meta.namespace, "name": meta.name, "volume": volume}
    if variable.source in fields:
        return fields[variable.source]
    value = (meta.labels if variable.source == "labels" else meta.annotations).get(variable.key, "")
    if value:
        return value
    if variable.fallback is None:
        # An empty value counts as missing: it once turned NAMESPACE/${…} into the namespace's own directory.
        raise InvalidPath(
            f"the claim has no {variable.source.removesuffix('s')} {variable.key!r}, which the pathPattern needs"
        )
    return variable.fallback


DEFAULT = parse(DEFAULT_PATTERN)
