"""Exceptions for requests that the service understands and refuses.

`api.web.problems` gives each class its HTTP status.
"""


class RefusalError(Exception):
    """A request that the service refuses.

    Attributes:
        kind: Stable name of the reason, for programs.
    """

    kind = "refused"

    def __init__(self, detail: str, kind: str | None = None) -> None:
        super().__init__(detail)
        if kind is not None:
            self.kind = kind


class NotFoundError(RefusalError):
    """The run, stream, veto, event or strain that the request names is not stored."""

    kind = "not-found"


class ConflictError(RefusalError):
    """The request contradicts stored data, or stored data do not suffice for it."""

    kind = "conflict"


class InvalidError(RefusalError):
    """The request is well-formed, but its values are not acceptable."""

    kind = "invalid"


class BusyError(RefusalError):
    """The service is too busy; the same request may succeed later."""

    kind = "busy"


def not_found(what: str, name: str) -> NotFoundError:
    """Make the refusal of a request that names something that is not stored.

    Args:
        what: What was looked up, such as ``run``.
        name: The name that the request gave.
    """
    return NotFoundError(f"{what} {name!r} does not exist; check its name")
