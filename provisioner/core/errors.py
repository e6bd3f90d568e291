"""The root of the error tree, and the errors of the rules in core.

`ports` adds the errors of the API server and of exports.
"""


class ProvisionerError(Exception):
    """The base of all expected errors. The text is fit for an event or a log line."""

    @property
    def event_text(self) -> str:
        """The text for an event on a claim, without anything that the claim's namespace must not see.

        See `core.discretion`.
        """
        return str(self)

    @property
    def reason(self) -> str:
        """The machine reason, for logs and metrics: one of a fixed set of words, never chosen by a tenant.

        See `core.reasons`.
        """
        return type(self).__name__


class InvalidSettings(ProvisionerError):
    """A flag, an environment variable or a part of a class cannot be used.

    The text says what to change.
    """


class UnknownParameter(InvalidSettings):
    """A StorageClass has a parameter that does not exist."""


class InvalidParameter(InvalidSettings):
    """A parameter of a StorageClass has a value that cannot be used."""


class InvalidMountOption(InvalidSettings):
    """An entry of `mountOptions` cannot be used."""


class InvalidQuantity(ProvisionerError):
    """A text is not a Kubernetes quantity."""


class InvalidPath(ProvisionerError):
    """A path breaks a rule of core.paths; the text names the path and the rule."""


class MissingLabel(InvalidPath):
    """The pathPattern needs a label that the claim does not have."""


class MissingAnnotation(InvalidPath):
    """The pathPattern needs an annotation that the claim does not have."""


class InvalidRecord(ProvisionerError):
    """A ledger record cannot be written or read; the text says why."""
