"""Why a question is not answered, or content not taken: refusals of the service."""


class RefusalError(Exception):
    """What was asked for cannot be done.

    Attributes:
        kind: Its stable name, for programs.
    """

    kind = "refused"

    def __init__(self, detail: str, kind: str | None = None) -> None:
        super().__init__(detail)
        if kind is not None:
            self.kind = kind


class NotFoundError(RefusalError):
    """Nothing of this name is stored."""

    kind = "not-found"


class ConflictError(RefusalError):
    """What is stored does not allow it."""

    kind = "conflict"


class InvalidError(RefusalError):
    """Content is well-formed and yet cannot be."""

    kind = "invalid"


class BusyError(RefusalError):
    """It may be asked for again later."""

    kind = "busy"


def not_found(what: str, name: str) -> NotFoundError:
    """The refusal that `what` called `name` is not stored."""
    return NotFoundError(f"{what} {name!r} is not there")
