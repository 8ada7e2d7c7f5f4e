"""What all writers share: the run's lock, digests, and the rules for repetition.

A writer stores a request body whole, recognises that the same content is stored
already, or refuses it. It runs in a transaction of `Database.writing`. Every other
writer waits for that transaction, so a body's digest is computed before it.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from sqlalchemy.orm import Session

from chirpwatch.api.contract.refusals import (
    ConflictError,
    InvalidError,
    not_found,
)
from chirpwatch.api.contract.status import Stored
from chirpwatch.api.storage.tables import (
    Base,
    RunRow,
)
from chirpwatch.geometry import Geometry

NEW = Stored(created=True, changed=True)
REPLACED = Stored(created=False, changed=True)
REPEATED = Stored(created=False, changed=False)


def digest_of(body: BaseModel) -> str:
    """SHA-256 of a body's JSON, which recognises repeated content."""
    return hashlib.sha256(body.model_dump_json().encode()).hexdigest()


def locked_run(session: Session, run_id: str) -> RunRow:
    """Load a run and lock it until the transaction ends.

    The lock makes a writer's checks and its insertion see the same rows. (SQLite allows
    one writer to the whole database anyway.)

    Raises:
        NotFoundError: There is no such run.
    """
    run = session.get(RunRow, run_id, with_for_update=True)
    if run is None:
        raise not_found("run", run_id)
    return run


def is_repeated(stored: str | None, digest: str, what: str) -> bool:
    """Whether content is stored already.

    Args:
        stored: Digest of what is stored under the same name; None if nothing is.
        digest: Digest of the new content.
        what: Name of the content, for the message.

    Raises:
        ConflictError: Other content is stored under the same name.
    """
    if stored is not None and stored != digest:
        raise ConflictError(f"{what} exists with other content; nothing was changed")
    return stored is not None


def check_unchanged(row: Base, values: Mapping[str, Any], what: str) -> None:
    """Check that a stored row has the same values as a new request.

    Args:
        row: The stored row.
        values: Column names and the request's values.
        what: Name of the row, for the message.

    Raises:
        ConflictError: A value differs.
    """
    for name, value in values.items():
        if getattr(row, name) != value:
            raise ConflictError(
                f"{what} exists: expected {name} = {getattr(row, name)!r} as stored, "
                f"found {value!r}; choose another identifier for a new one"
            )


def check_stride(geometry: Geometry, stride_ns: int, what: str) -> None:
    """Check that a chunk or block has the stride of its run's geometry.

    Raises:
        InvalidError: It has another one.
    """
    expected_ns = geometry.stride_ns
    if stride_ns != expected_ns:
        raise InvalidError(
            f"{what}: expected strides of {expected_ns} ns as in the run's geometry, "
            f"found {stride_ns} ns"
        )
