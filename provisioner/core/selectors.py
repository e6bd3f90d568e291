"""Label selectors as kubectl reads them: `app=db,tier!=cache,env in (test, prod),!legacy`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from provisioner.core.errors import InvalidSettings

_KEY = r"(?:[a-z0-9.-]+/)?[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?"
_VALUE = r"[-A-Za-z0-9_.]*"
_REQUIREMENT = re.compile(
    rf"\s*(?:(?P<absent>!\s*)?(?P<there>{_KEY})"
    rf"|(?P<key>{_KEY})\s*(?P<sign>==|=|!=)\s*(?P<value>{_VALUE})"
    rf"|(?P<of>{_KEY})\s+(?P<word>in|notin)\s*\((?P<values>\s*{_VALUE}(?:\s*,\s*{_VALUE})*\s*)\))\s*"
)


@dataclass(frozen=True, slots=True)
class Requirement:
    """What a selector asks of one label. Without values, only whether the label is there counts."""

    key: str
    values: frozenset[str] | None
    negated: bool

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Return True if the labels meet the requirement; `!=` and `notin` accept a missing label, as in Kubernetes."""
        value = labels.get(self.key)
        found = value is not None and (self.values is None or value in self.values)
        return found is not self.negated


@dataclass(frozen=True, slots=True)
class Selector:
    """Requirements that all have to be met; without any, everything matches."""

    requirements: tuple[Requirement, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Return True if the labels meet all requirements."""
        return all(each.matches(labels) for each in self.requirements)


@dataclass(frozen=True, slots=True)
class Choice:
    """Which objects a user wants to see: those of one namespace, or of all, whose labels match."""

    namespace: str | None = None
    selector: Selector = Selector()

    @property
    def has_labels(self) -> bool:
        """Whether labels matter."""
        return bool(self.selector.requirements)

    def has(self, namespace: str, labels: Mapping[str, str]) -> bool:
        """Return True if an object of this namespace with these labels is wanted."""
        return self.namespace in (None, namespace) and self.selector.matches(labels)


def parse(text: str) -> Selector:
    """Parse a selector; an empty one selects everything. Raises InvalidSettings."""
    parts = re.split(r",(?![^(]*\))", text) if text.strip() else []
    return Selector(tuple(_requirement(part, text) for part in parts))


def _requirement(part: str, text: str) -> Requirement:
    found = _REQUIREMENT.fullmatch(part)
    if found is None:
        raise InvalidSettings(
            f"--selector {text!r} is not a label selector: write for example app=db, tier!=cache, 'env in (a, b)' or"
            " '!legacy', with commas between"
        )
    if found["there"]:
        return Requirement(found["there"], None, found["absent"] is not None)
    if found["key"]:
        return Requirement(found["key"], frozenset((found["value"],)), found["sign"] == "!=")
    values = frozenset(value.strip() for value in found["values"].split(","))
    return Requirement(found["of"], values, found["word"] == "notin")
