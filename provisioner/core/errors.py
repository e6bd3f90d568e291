"""The root of the product's error tree; ports.py adds what the outside can do to us."""


class ProvisionerError(Exception):
    """Anything that goes wrong and that we have words for. The text is fit for an event or a log line."""

    @property
    def told(self) -> str:
        """The text for an event on a claim: without what its namespace must not know (core.discretion)."""
        return str(self)

    @property
    def reason(self) -> str:
        """One word for a metric: of few that there are, and none of a tenant's choosing."""
        return type(self).__name__


class InvalidSettings(ProvisionerError):
    """A flag, an environment variable or a class parameter cannot be used; the text says what to change."""


class InvalidQuantity(ProvisionerError):
    """A text is not a Kubernetes quantity."""


class InvalidPath(ProvisionerError):
    """A path breaks a rule of core.paths; the text names the path and the rule."""


class InvalidRecord(ProvisionerError):
    """A ledger record cannot be written or read; the text says why."""
