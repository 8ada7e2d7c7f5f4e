"""Writing injection sets."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from chirpwatch.api.contract.injection_set import InjectionSet
from chirpwatch.api.contract.status import Stored
from chirpwatch.api.storage.store import (
    NEW,
    REPEATED,
    is_repeated,
    locked_run,
)
from chirpwatch.api.storage.tables import (
    InjectionRow,
    InjectionSetRow,
)


def put_injections(
    session: Session, run_id: str, name: str, body: InjectionSet, digest: str
) -> Stored:
    """Store an injection set with all its injections.

    Raises:
        ConflictError: The set exists with other content.
    """
    run = locked_run(session, run_id)
    stored = session.scalar(
        select(InjectionSetRow.digest).where(
            InjectionSetRow.run_id == run_id, InjectionSetRow.name == name
        )
    )
    if is_repeated(stored, digest, f"injection set {name!r} of run {run_id!r}"):
        return REPEATED
    row = InjectionSetRow(
        run_id=run_id,
        name=name,
        size=len(body.injections),
        population=body.population.model_dump() if body.population else None,
        digest=digest,
    )
    session.add(row)
    session.flush()
    session.add_all(
        InjectionRow(set_id=row.id, **injection.model_dump())
        for injection in body.injections
    )
    run.revision += 1
    return NEW
