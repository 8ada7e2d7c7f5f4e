"""Writing runs and streams."""

import json
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from chirpwatch.api.contract.refusals import (
    ConflictError,
    InvalidError,
    not_found,
)
from chirpwatch.api.contract.requests import (
    Run,
    RunUpdate,
    Stream,
)
from chirpwatch.api.contract.status import Stored
from chirpwatch.api.storage.store import (
    NEW,
    REPEATED,
    check_unchanged,
    locked_run,
)
from chirpwatch.api.storage.tables import (
    RunRow,
    StreamRow,
)
from chirpwatch.geometry import Geometry


def put_run(session: Session, run_id: str, body: Run) -> Stored:
    """Register a run.

    Raises:
        ConflictError: The run exists with other values, or its background run does not
            suit it.
        NotFoundError: There is no such background run.
    """
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
    if run is not None:
        check_unchanged(run, values, f"run {run_id!r}")
        return REPEATED
    if body.background_run is not None:
        _check_background_run(session, body.background_run, values)
    session.add(RunRow(id=run_id, **values))
    return NEW


def _check_background_run(session: Session, name: str, values: dict[str, Any]) -> None:
    """Check that a run's background may give another run's false-alarm rates."""
    other = session.get(RunRow, name)
    if other is None:
        raise not_found("run", name)
    if other.background_run is not None:
        raise ConflictError(
            f"background_run: expected a run with background of its own, found "
            f"{name!r}, which uses that of {other.background_run!r}; name that run"
        )
    for what in ("model", "geometry"):
        if getattr(other, what) != values[what]:
            raise ConflictError(
                f"background_run: expected a run of the same {what}, {values[what]}, "
                f"found {getattr(other, what)} of {name!r}; background of another "
                f"{what} says nothing about this run"
            )


def update_run(session: Session, run_id: str, body: RunUpdate) -> None:
    """Update a run's state and performance; fields without a value stay."""
    run = locked_run(session, run_id)
    changes = body.model_dump(exclude_none=True)
    for name, value in changes.items():
        setattr(run, name, value)
    if body.state == "running" and body.message is None:
        # The message was the reason of a failure that the run has recovered from.
        run.message = None
    if changes:
        run.revision += 1


def put_stream(session: Session, run_id: str, name: str, body: Stream) -> Stored:
    """Declare a stream of a run.

    Raises:
        ConflictError: The stream exists with other values, or its injection set is in
            use at other shifts.
        InvalidError: The shifts are not those of the run's detectors.
    """
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
    if stream is not None:
        check_unchanged(stream, values, f"stream {name!r} of run {run_id!r}")
        return REPEATED
    _check_injection_set(session, run_id, body.injection_set, json.dumps(shifts))
    session.add(StreamRow(run_id=run_id, name=name, duration=body.duration, **values))
    run.revision += 1
    return NEW


def _check_injection_set(
    session: Session, run_id: str, name: str | None, shifts: str
) -> None:
    """Check that an injection set is used at one set of shifts only."""
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
            f"injection set {name!r}: expected streams at the shifts of stream "
            f"{other!r}, found {shifts}; an injection with two tries is found too "
            "often: use one set for each set of shifts"
        )
