"""Writing strain around events."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from chirpwatch.api.contract.refusals import InvalidError
from chirpwatch.api.contract.requests import Strain
from chirpwatch.api.contract.status import Stored
from chirpwatch.api.storage.store import (
    NEW,
    REPEATED,
    is_repeated,
    locked_run,
)
from chirpwatch.api.storage.tables import StrainRow
from chirpwatch.geometry import Geometry


def put_strain(
    session: Session, run_id: str, start_ns: int, body: Strain, digest: str
) -> Stored:
    """Store strain from GPS `start_ns` on.

    Raises:
        ConflictError: Other strain with the same start is stored.
        InvalidError: The detectors are not the run's, or the sample rate is too low for
            the run's highpass.
    """
    run = locked_run(session, run_id)
    geometry = Geometry.from_json(run.geometry)
    ifos = geometry.ifos
    if set(body.strain) != set(ifos):
        raise InvalidError(
            f"strain: expected detectors {', '.join(ifos)} of run {run_id!r}, "
            f"found {', '.join(sorted(body.strain))}"
        )
    lowest_rate = 2.5 * geometry.highpass
    if body.sample_rate < lowest_rate:
        raise InvalidError(
            f"sample_rate: expected at least {lowest_rate:g} Hz for the highpass of "
            f"run {run_id!r}, found {body.sample_rate} Hz"
        )
    stored = session.scalar(
        select(StrainRow.digest).where(
            StrainRow.run_id == run_id, StrainRow.start_ns == start_ns
        )
    )
    if is_repeated(stored, digest, f"strain of run {run_id!r} from {start_ns} ns"):
        return REPEATED
    samples = body.samples()
    size = samples[ifos[0]].size
    session.add(
        StrainRow(
            run_id=run_id,
            start_ns=start_ns,
            stop_ns=start_ns + round(size / body.sample_rate * 1e9),
            sample_rate=body.sample_rate,
            size=size,
            ifos=list(ifos),
            digest=digest,
            strain=b"".join(samples[ifo].tobytes() for ifo in ifos),
        )
    )
    run.revision += 1
    return NEW
