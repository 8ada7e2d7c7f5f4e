"""Writing: each function stores a body whole, finds it there already, or refuses it.

They run in a transaction of `Database.writing` and, where they do not say otherwise,
return whether the content is new. `digest` is that of the body, made before the
transaction, in which every other writer waits.
"""

import hashlib
import json
from typing import Any

import numpy as np
from pydantic import BaseModel
from sqlalchemy import select
from sqlalchemy.orm import Session

from chirpwatch.api.contract.refusals import (
    ConflictError,
    InvalidError,
    not_found,
)
from chirpwatch.api.contract.requests import (
    InjectionSet,
    Run,
    RunUpdate,
    Strain,
    Stream,
    Veto,
)
from chirpwatch.api.storage.database import (
    InjectionRow,
    InjectionSetRow,
    RunRow,
    StrainRow,
    StreamRow,
    VetoRow,
)
from chirpwatch.geometry import Geometry


def digest_of(body: BaseModel) -> str:
    """SHA-256 of a body's JSON, to recognise the same content by."""
    return hashlib.sha256(body.model_dump_json().encode()).hexdigest()


def locked_run(session: Session, run_id: str) -> RunRow:
    """The run, locked until the transaction ends.

    The checks of a writer and the insertion that follows must see the same rows.
    (SQLite has one writer for everything anyway.)
    """
    run = session.get(RunRow, run_id, with_for_update=True)
    if run is None:
        raise not_found("run", run_id)
    return run


def put_run(session: Session, run_id: str, body: Run) -> bool:
    """Register a run."""
    values = {
        "name": body.name,
        "model": body.model,
        "geometry": body.geometry.geometry().to_json(),
        "simulated": body.simulated,
        "data": body.data,
        "planned_background": body.planned_background,
        "background_run": body.background_run,
    }
    run = session.get(RunRow, run_id)
    if run is None:
        if body.background_run is not None:
            _check_background(session, body.background_run, values)
        session.add(RunRow(id=run_id, **values))
        return True
    for name, value in values.items():
        if getattr(run, name) != value:
            raise ConflictError(
                f"run {run_id!r} exists with {name} = {getattr(run, name)!r}, not "
                f"{value!r}; choose another identifier for a new run"
            )
    return False


def _check_background(session: Session, name: str, values: dict[str, Any]) -> None:
    """Refuse background of another model or geometry, or that is not a run's own."""
    other = session.get(RunRow, name)
    if other is None:
        raise not_found("run", name)
    if other.background_run is not None:
        raise ConflictError(
            f"background_run: run {name!r} has no background of its own, it uses that "
            f"of {other.background_run!r}"
        )
    for what in ("model", "geometry"):
        if getattr(other, what) != values[what]:
            raise ConflictError(
                f"background_run: expected a run of the same {what}, {values[what]}, "
                f"found {getattr(other, what)} of {name!r}; background of another says "
                "nothing"
            )


def update_run(session: Session, run_id: str, body: RunUpdate) -> None:
    """Change the state of a run and what was measured about it."""
    run = locked_run(session, run_id)
    changes = body.model_dump(exclude_none=True)
    for name, value in changes.items():
        setattr(run, name, value)
    if body.state == "running" and body.message is None:
        # A run that goes on after a failure no longer has a reason for it.
        run.message = None
    if changes:
        run.revision += 1


def put_stream(session: Session, run_id: str, name: str, body: Stream) -> bool:
    """Declare a stream of a run."""
    run = locked_run(session, run_id)
    ifos = Geometry.from_json(run.geometry).ifos
    if set(body.shifts) != set(ifos):
        raise InvalidError(
            f"shifts: expected one for each of {', '.join(ifos)} of run {run_id!r}, "
            f"found {', '.join(sorted(body.shifts)) or 'none'}"
        )
    # Adding zero turns -0.0 into 0.0, which is the same shift.
    shifts = {ifo: shift + 0.0 for ifo, shift in sorted(body.shifts.items())}
    origin_ns = round(body.shifts[ifos[0]] * 1e9)
    relative = {ifo: round(shift * 1e9) - origin_ns for ifo, shift in shifts.items()}
    values = {
        "kind": body.kind,
        "shifts": json.dumps(shifts),
        "relative_shifts": json.dumps(relative),
        "origin_ns": origin_ns,
        "segment": body.segment,
        "injection_set": body.injection_set,
        "cluster_length": body.cluster_length,
    }
    stream = session.scalar(
        select(StreamRow).where(StreamRow.run_id == run_id, StreamRow.name == name)
    )
    if stream is None:
        _check_injection_set(session, run_id, body.injection_set, json.dumps(shifts))
        row = StreamRow(run_id=run_id, name=name, duration=body.duration, **values)
        session.add(row)
        run.revision += 1
        return True
    for field, value in values.items():
        if getattr(stream, field) != value:
            raise ConflictError(
                f"stream {name!r} of run {run_id!r} exists with {field} = "
                f"{getattr(stream, field)!r}, not {value!r}"
            )
    return False


def _check_injection_set(
    session: Session, run_id: str, name: str | None, shifts: str
) -> None:
    """Refuse a set that is used at other shifts: each injection has one try."""
    if name is None:
        return
    other = session.scalar(
        select(StreamRow.name).where(
            StreamRow.run_id == run_id,
            StreamRow.injection_set == name,
            StreamRow.shifts != shifts,
        )
    )
    if other is not None:
        raise ConflictError(
            f"injection set {name!r} is in stream {other!r} at other shifts; an "
            "injection that has two tries is found too often: use one set for each"
        )


def put_injections(
    session: Session, run_id: str, name: str, body: InjectionSet, digest: str
) -> bool:
    """Store a set of injections."""
    run = locked_run(session, run_id)
    stored = session.scalar(
        select(InjectionSetRow.digest).where(
            InjectionSetRow.run_id == run_id, InjectionSetRow.name == name
        )
    )
    if stored == digest:
        return False
    if stored is not None:
        raise ConflictError(
            f"injection set {name!r} of run {run_id!r} exists with other content"
        )
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
    return True


def put_strain(
    session: Session, run_id: str, start_ns: int, body: Strain, digest: str
) -> bool:
    """Store strain around an event."""
    run = locked_run(session, run_id)
    ifos = Geometry.from_json(run.geometry).ifos
    if set(body.strain) != set(ifos):
        raise InvalidError(
            f"strain: expected that of each of {', '.join(ifos)} of run {run_id!r}, "
            f"found {', '.join(sorted(body.strain))}"
        )
    least = 2.5 * Geometry.from_json(run.geometry).highpass
    if body.sample_rate < least:
        raise InvalidError(
            f"strain: expected at least {least:g} Hz, for the run's highpass, found "
            f"{body.sample_rate} Hz"
        )
    stored = session.scalar(
        select(StrainRow.digest).where(
            StrainRow.run_id == run_id, StrainRow.start_ns == start_ns
        )
    )
    if stored == digest:
        return False
    if stored is not None:
        raise ConflictError(
            f"strain of run {run_id!r} from {start_ns} ns exists with other content"
        )
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
    return True


def put_veto(
    session: Session, run_id: str, name: str, body: Veto, digest: str
) -> tuple[bool, bool]:
    """Store a list of vetoed segments, or put it in the place of another one.

    Returns whether there was none of this name, and whether anything changed.
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
        return False, False
    created = row is None
    if row is None:
        row = VetoRow(run_id=run_id, name=name)
        session.add(row)
    row.reason = body.reason
    row.ifos = [ifo for ifo in ifos if body.ifos is None or ifo in body.ifos]
    row.segments = np.array(body.segments, dtype="<i8").tobytes()
    row.digest = digest
    run.vetoing += 1
    run.revision += 1
    return created, True


def delete_veto(session: Session, run_id: str, name: str) -> None:
    """Take a list of vetoed segments back."""
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
