"""Writing and deleting vetoes."""

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from chirpwatch.api.contract.refusals import (
    InvalidError,
    not_found,
)
from chirpwatch.api.contract.requests import Veto
from chirpwatch.api.contract.status import Stored
from chirpwatch.api.storage.store import (
    NEW,
    REPEATED,
    REPLACED,
    locked_run,
)
from chirpwatch.api.storage.tables import VetoRow
from chirpwatch.geometry import Geometry


def put_veto(
    session: Session, run_id: str, name: str, body: Veto, digest: str
) -> Stored:
    """Store a veto, replacing one with the same name.

    Raises:
        InvalidError: A detector is not one of the run's.
    """
    run = locked_run(session, run_id)
    ifos = Geometry.from_json(run.geometry).ifos
    unknown = sorted(set(body.ifos or ()) - set(ifos))
    if unknown:
        raise InvalidError(
            f"veto {name!r}: expected detectors of run {run_id!r}, {', '.join(ifos)}; "
            f"found {', '.join(unknown)}"
        )
    row = _veto(session, run_id, name)
    if row is not None and row.digest == digest:
        return REPEATED
    outcome = NEW if row is None else REPLACED
    if row is None:
        row = VetoRow(run_id=run_id, name=name)
        session.add(row)
    row.reason = body.reason
    row.ifos = [ifo for ifo in ifos if body.ifos is None or ifo in body.ifos]
    row.segments = np.array(body.segments, dtype="<i8").tobytes()
    row.digest = digest
    run.vetoing += 1
    run.revision += 1
    return outcome


def delete_veto(session: Session, run_id: str, name: str) -> None:
    """Delete a veto, which restores its events and livetime.

    Raises:
        NotFoundError: There is no such veto.
    """
    run = locked_run(session, run_id)
    row = _veto(session, run_id, name)
    if row is None:
        raise not_found("veto", name)
    session.delete(row)
    run.vetoing += 1
    run.revision += 1


def _veto(session: Session, run_id: str, name: str) -> VetoRow | None:
    return session.scalar(
        select(VetoRow).where(VetoRow.run_id == run_id, VetoRow.name == name)
    )
