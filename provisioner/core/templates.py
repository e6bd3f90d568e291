"""Path templates such as `${.PVC.namespace}/${.PVC.name}`, in nfs-subdir's and in csi-driver-nfs's spelling.

A pattern is cut at its slashes into segments. A segment that holds a variable must come to a name: if an empty value
could drop out, `NAMESPACE/${…}` would be the namespace's own directory (peers, harm 2). Slashes and `.` that add
nothing, in the pattern or in a value, are dropped as both peers drop them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from provisioner.core.errors import InvalidPath, InvalidSettings, MissingAnnotation, MissingLabel
from provisioner.core.locations import RelPath
from provisioner.core.objects import Claim
from provisioner.core.paths import check, components, shorten, shown

DEFAULT_PATTERN = "${.PVC.namespace}-${.PVC.name}-${.PV.name}"
DEPTH_LIMIT = 8
"""How deep fallbacks may be nested. No pattern needs more, and the parser is recursive."""

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
_FOREIGN = {".pvname": ".PV.name"}
"""local-path-provisioner's own names, in lower case."""

_NAME = re.compile(r"([^{}]*?)(:-|\})")
_FALLBACK_PART = re.compile(r"([^${}]|\$(?!\{))*")
_GO_TEMPLATE = re.compile(r"\{\{-?\s*(.*?)\s*(?:-?\}\}|$)", re.DOTALL)
_GO_INDEX = re.compile(r"index\s+(\.PVC\.(?:labels|annotations))\s+[\"'`](.*)[\"'`]", re.IGNORECASE)
_WITHOUT_BRACES = re.compile(r"\$\(?(\.?PVC?\.[\w./-]*)\)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Variable:
    """One `${…}`: `source` is namespace, name, volume, labels or annotations; `key` belongs to the last two."""

    text: str = field(compare=False)
    source: str
    key: str
    fallback: tuple[Piece, ...] | None


Piece = str | Variable
"""A literal text or a variable."""

Segment = tuple[Piece, ...]
"""What stands between two slashes of a pattern."""


@dataclass(frozen=True, slots=True)
class Template:
    """A parsed path template."""

    text: str = field(compare=False)
    segments: tuple[Segment, ...]

    def keys(self, source: str) -> frozenset[str]:
        """The keys of a claim's `labels` or `annotations` that the template reads, those of fallbacks among them."""
        return frozenset(
            variable.key for segment in self.segments for variable in _variables(segment) if variable.source == source
        )

    def render(self, claim: Claim, volume: str) -> RelPath:
        """The directory for a claim. Raises InvalidPath for an empty variable or a result that breaks a path rule.

        Only the default pattern is ever shortened: a user's pattern that is too long is refused, since a cut name may
        be another volume's.
        """
        if self.segments == DEFAULT.segments:
            meta = claim.metadata
            return check(shorten(f"{meta.namespace}-", meta.name, f"-{volume}"))
        return check("/".join(name for each in self.segments for name in _names(each, claim, volume)))


def parse(text: str) -> Template:
    """The template of a text. Raises InvalidSettings that names the piece which cannot be used."""
    if not text:
        raise InvalidSettings("it is empty")
    _refuse_other_languages(text)
    return Template(text, tuple(_segments(_Parser(text).pattern())))


def _refuse_other_languages(text: str) -> None:
    """Raise InvalidSettings where something is meant as a variable and would be taken as a name."""
    if found := _GO_TEMPLATE.search(text):
        spelled = _spelled(found[1])
        advice = f"write {spelled}" if spelled else f"known are {_KNOWN}"
        raise InvalidSettings(f"{shown(found[0])} is a Go template, which is not understood here: {advice}")
    if found := _WITHOUT_BRACES.search(text):
        advice = _spelled(found[1]) or f"one of {_KNOWN}"
        raise InvalidSettings(f"{shown(found[0])} is a variable without its braces: write {advice}")


def _spelled(name: str) -> str | None:
    """The variable that is meant by a name in another case, with spaces, or of a Go template."""
    if index := _GO_INDEX.fullmatch(name):
        name = f"{index[1]}.{index[2]}"
    name = name.strip()
    for candidate in (name, f".{name}"):
        known = {field.lower(): field for field in _FIELDS} | _FOREIGN
        if candidate.lower() in known:
            return f"${{{known[candidate.lower()]}}}"
        for prefix in _MAPS:
            if candidate.lower().startswith(prefix.lower()) and len(candidate) > len(prefix):
                return f"${{{prefix}{candidate[len(prefix) :]}}}"
    return None


class _Parser:
    """Reads a pattern from left to right."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def pattern(self) -> Iterator[Piece]:
        """The pieces of the whole text."""
        while (start := self._text.find("${", self._at)) >= 0:
            yield self._text[self._at : start]
            self._at = start
            yield self._variable(depth=0)
        yield self._text[self._at :]

    def _variable(self, *, depth: int) -> Variable:
        """The variable that begins here."""
        start = self._at
        if depth > DEPTH_LIMIT:
            raise InvalidSettings(f"{shown(self._text)} nests fallbacks more than {DEPTH_LIMIT} levels deep")
        match = _NAME.match(self._text, start + 2)
        if match is None:
            raise self._not_closed(start)
        self._at = match.end()
        fallback = self._fallback(start, depth) if match[2] == ":-" else None
        return _known(match[1], self._text[start : self._at], fallback)

    def _fallback(self, start: int, depth: int) -> tuple[Piece, ...]:
        """The pieces up to the brace that closes the variable which began at `start`."""
        pieces: list[Piece] = []
        while True:
            match = _FALLBACK_PART.match(self._text, self._at)
            assert match is not None  # it matches nothing at all too
            pieces.append(match[0])
            self._at = match.end()
            if self._text.startswith("}", self._at):
                self._at += 1
                return tuple(piece for piece in pieces if piece != "")
            if not self._text.startswith("${", self._at):
                raise self._not_closed(start)
            pieces.append(self._variable(depth=depth + 1))

    def _not_closed(self, start: int) -> InvalidSettings:
        return InvalidSettings(
            f"{shown(self._text[start:])} has a '${{' that is not closed by a '}}' before the next brace; only a"
            " fallback may hold another variable, as in ${.PVC.labels.team:-${.PVC.name}}"
        )


def _known(name: str, text: str, fallback: tuple[Piece, ...] | None) -> Variable:
    if name in _FIELDS:
        return Variable(text, _FIELDS[name], "", fallback)
    for prefix, source in _MAPS.items():
        if name.startswith(prefix) and len(name) > len(prefix):
            return Variable(text, source, name.removeprefix(prefix), fallback)
    spelled = _spelled(name)
    if spelled is not None:
        raise InvalidSettings(f"{shown(text)} is unknown: write {spelled}")
    raise InvalidSettings(f"{shown(text)} is unknown; known are {_KNOWN}, each also as ${{…:-fallback}}")


def _segments(pieces: Iterable[Piece]) -> Iterator[Segment]:
    """The pieces between the slashes of the literal texts; slashes and `.` that add nothing are left out."""
    segment: list[Piece] = []
    for piece in (*pieces, "/"):
        if isinstance(piece, Variable):
            segment.append(piece)
            continue
        *ends, last = piece.split("/")
        for end in ends:
            whole = tuple(each for each in (*segment, end) if each != "")
            if whole not in ((), (".",)):
                yield whole
            segment = []
        segment.append(last)


def _variables(pieces: Iterable[Piece]) -> Iterator[Variable]:
    """The variables among pieces, and those of their fallbacks."""
    for piece in pieces:
        if isinstance(piece, Variable):
            yield piece
            yield from _variables(piece.fallback or ())


def _names(segment: Segment, claim: Claim, volume: str) -> list[str]:
    """The components that a segment comes to: mostly one, more where a value has slashes in it."""
    names = components(_text(segment, claim, volume))
    if not names:
        variables = ", ".join(shown(piece.text) for piece in segment if isinstance(piece, Variable))
        raise InvalidPath(f"the directory has an empty component: {variables} came out empty for this claim")
    return names


def _text(pieces: Iterable[Piece], claim: Claim, volume: str) -> str:
    return "".join(piece if isinstance(piece, str) else _value(piece, claim, volume) for piece in pieces)


def _value(variable: Variable, claim: Claim, volume: str) -> str:
    meta = claim.metadata
    fields = {"namespace": meta.namespace, "name": meta.name, "volume": volume}
    if variable.source in fields:
        return fields[variable.source]
    value = (meta.labels if variable.source == "labels" else meta.annotations).get(variable.key, "")
    if value.strip() and components(value):  # slashes alone are as empty as nothing
        return value
    if variable.fallback is not None:
        return _text(variable.fallback, claim, volume)
    kind, error = ("label", MissingLabel) if variable.source == "labels" else ("annotation", MissingAnnotation)
    raise error(f"the claim has no {kind} {shown(variable.key)}, or an empty one, which the pathPattern needs")


DEFAULT = parse(DEFAULT_PATTERN)
