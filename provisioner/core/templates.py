"""Path templates such as `${.PVC.namespace}/${.PVC.name}`, in the spelling of nfs-subdir and of csi-driver-nfs.

A pattern is split at its slashes into segments. A segment with a variable must result in a name: if an empty value were
dropped, `NAMESPACE/${…}` would become the namespace's own directory (peers, harm 2). Slashes and `.` that add nothing,
in the pattern or in a value, are dropped, as both other provisioners do.
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
"""How deep fallbacks can be nested. No pattern needs more, and the parser is recursive."""

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
"""Names of local-path-provisioner, in lower case."""

_NAME = re.compile(r"([^{}]*?)(:-|\})")
_FALLBACK_PART = re.compile(r"([^${}]|\$(?!\{))*")
_GO_TEMPLATE = re.compile(r"\{\{-?\s*(.*?)\s*(?:-?\}\}|$)", re.DOTALL)
_GO_INDEX = re.compile(r"index\s+(\.PVC\.(?:labels|annotations))\s+[\"'`](.*)[\"'`]", re.IGNORECASE)
_WITHOUT_BRACES = re.compile(r"\$\(?(\.?PVC?\.[\w./-]*)\)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Variable:
    """One `${…}`: `source` is namespace, name, volume, labels or annotations.

    `key` is for the last two.
    """

    text: str = field(compare=False)
    source: str
    key: str
    fallback: tuple[Piece, ...] | None


Piece = str | Variable
"""A literal text or a variable."""

Segment = tuple[Piece, ...]
"""The pieces between two slashes of a pattern."""


@dataclass(frozen=True, slots=True)
class Template:
    """A parsed path template."""

    text: str = field(compare=False)
    segments: tuple[Segment, ...]
    reads: frozenset[tuple[str, str]] = field(compare=False)
    """The keys of a claim's `labels` and `annotations` that the template reads, each with its source."""

    def keys(self, source: str) -> frozenset[str]:
        """Return the keys of a claim's `labels` or `annotations` that the template reads, also in fallbacks."""
        return frozenset(key for read, key in self.reads if read == source)

    def render(self, claim: Claim, volume_name: str) -> RelPath:
        """Return the directory for a claim. Raises InvalidPath for an empty variable or a result that breaks a rule.

        Only the default pattern is ever shortened. A user's pattern that gets too long is refused, since a shortened
        name can be that of another volume.
        """
        if self.segments == DEFAULT.segments:
            meta = claim.metadata
            return check(shorten(f"{meta.namespace}-", meta.name, f"-{volume_name}"))
        return check("/".join(name for each in self.segments for name in _names(each, claim, volume_name)))


def parse(text: str) -> Template:
    """Parse a template. Raises InvalidSettings, which names the piece that cannot be used."""
    if not text:
        raise InvalidSettings("it is empty: write a pattern such as ${.PVC.namespace}/${.PVC.name}")
    _refuse_other_languages(text)
    segments = tuple(_segments(_Parser(text).pattern()))
    variables = (variable for segment in segments for variable in _variables(segment))
    return Template(text, segments, frozenset((each.source, each.key) for each in variables if each.key))


def _refuse_other_languages(text: str) -> None:
    """Raise InvalidSettings if a text is meant as a variable but would be used as a literal name."""
    if found := _GO_TEMPLATE.search(text):
        spelled = _spelled(found[1])
        advice = f"write {spelled}" if spelled else f"use one of {_KNOWN}"
        raise InvalidSettings(f"{shown(found[0])} is a Go template, which is not supported: {advice}")
    if found := _WITHOUT_BRACES.search(text):
        advice = _spelled(found[1]) or f"one of {_KNOWN}"
        raise InvalidSettings(f"{shown(found[0])} is a variable without its braces: write {advice}")


def _spelled(name: str) -> str | None:
    """Return the variable that is meant by a name in another case, with spaces, or from a Go template."""
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
    """A recursive parser: reads a pattern from left to right."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def pattern(self) -> Iterator[Piece]:
        """Iterate over the pieces of the whole text."""
        while (start := self._text.find("${", self._at)) >= 0:
            yield self._text[self._at : start]
            self._at = start
            yield self._variable(depth=0)
        yield self._text[self._at :]

    def _variable(self, *, depth: int) -> Variable:
        """Parse the variable that begins here."""
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
        """Parse the pieces up to the brace that closes the variable which began at `start`."""
        pieces: list[Piece] = []
        while True:
            match = _FALLBACK_PART.match(self._text, self._at)
            assert match is not None  # the pattern also matches the empty text
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
    raise InvalidSettings(f"{shown(text)} is unknown: use one of {_KNOWN}, each also as ${{…:-fallback}}")


def _segments(pieces: Iterable[Piece]) -> Iterator[Segment]:
    """Split pieces at the slashes of their literal texts.

    Slashes and `.` that add nothing are dropped.
    """
    segment: list[Piece] = []
    for piece in (*pieces, "/"):
        if isinstance(piece, Variable):
            segment.append(piece)
            continue
        *ends, last = piece.split("/")
        for end in ends:
            component = tuple(each for each in (*segment, end) if each != "")
            if component not in ((), (".",)):
                yield component
            segment = []
        segment.append(last)


def _variables(pieces: Iterable[Piece]) -> Iterator[Variable]:
    """Iterate over the variables in pieces and in their fallbacks."""
    for piece in pieces:
        if isinstance(piece, Variable):
            yield piece
            yield from _variables(piece.fallback or ())


def _names(segment: Segment, claim: Claim, volume_name: str) -> list[str]:
    """Return the components of a rendered segment: usually one, more if a value has slashes."""
    names = components(_text(segment, claim, volume_name))
    if not names:
        variables = ", ".join(shown(piece.text) for piece in segment if isinstance(piece, Variable))
        raise InvalidPath(f"the directory has an empty component: {variables} is empty for this claim")
    return names


def _text(pieces: Iterable[Piece], claim: Claim, volume_name: str) -> str:
    return "".join(piece if isinstance(piece, str) else _value(piece, claim, volume_name) for piece in pieces)


def _value(variable: Variable, claim: Claim, volume_name: str) -> str:
    meta = claim.metadata
    fields = {"namespace": meta.namespace, "name": meta.name, "volume": volume_name}
    if variable.source in fields:
        return fields[variable.source]
    value = (meta.labels if variable.source == "labels" else meta.annotations).get(variable.key, "")
    if value.strip() and components(value):  # a value of slashes only counts as empty
        return value
    if variable.fallback is not None:
        return _text(variable.fallback, claim, volume_name)
    kind, error = ("label", MissingLabel) if variable.source == "labels" else ("annotation", MissingAnnotation)
    raise error(f"the claim has no {kind} {shown(variable.key)}, or an empty one, which the pathPattern needs")


DEFAULT = parse(DEFAULT_PATTERN)
