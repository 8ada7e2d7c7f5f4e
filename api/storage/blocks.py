"""Writing blocks of background, after checks that no data are paired twice."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from chirpwatch.api.contract.refusals import (
    ConflictError,
    InvalidError,
)
from chirpwatch.api.contract.requests import Block
from chirpwatch.api.contract.status import Stored
from chirpwatch.api.storage.store import (
    NEW,
    REPEATED,
    check_stride,
    digest_of,
    is_repeated,
    locked_run,
)
from chirpwatch.api.storage.tables import (
    EVENT,
    BlockRow,
)
from chirpwatch.background import Background
from chirpwatch.geometry import Geometry

KEPT_PER_BLOCK = 4096
"""Loudest events of a block whose exact statistics are kept; others are binned.

A block of 100 slides over 1024 s has about 12,000 events, so that the binned ones have
false-alarm rates above one per 25 s.
"""


def put_block(
    session: Session, run_id: str, number: int, body: Block, packed: dict[str, Any]
) -> Stored:
    """Store a block.

    Args:
        session: Session of a writing transaction.
        run_id: The run.
        number: The block's number.
        body: The block.
        packed: The block's columns, from `pack`.

    Raises:
        ConflictError: The block exists with other content, overlaps a block over
            another stretch, or repeats a slide of another block.
        InvalidError: The block contradicts the run's geometry, its shifts let two
            detectors see the same signal, or two of its slides are alike.
    """
    run = locked_run(session, run_id)
    stored = session.scalar(
        select(BlockRow.digest).where(
            BlockRow.run_id == run_id, BlockRow.number == number
        )
    )
    where = f"background block {number} of run {run_id!r}"
    if is_repeated(stored, packed["digest"], where):
        return REPEATED
    geometry = Geometry.from_json(run.geometry)
    _check_content(geometry, body, where)
    shifts = _shifts_ns(body, geometry.ifos)
    least_ns = round((geometry.kernel_length + geometry.fduration) * 1e9)
    stretch_ns = body.strides * body.stride_ns
    _check_slides(shifts, geometry.ifos, stretch_ns, least_ns, where)
    others = _same_stretch(session, run_id, body, len(geometry.ifos), where)
    repeated = _repeated_slide(shifts, others, stretch_ns, least_ns)
    if repeated is not None:
        slide, other, other_number = repeated
        raise ConflictError(
            f"{where}: expected slides at least {least_ns / 1e9:g} s apart at a "
            f"detector or more, found slide {slide} closer to slide {other} of block "
            f"{other_number}; livetime must not be counted twice"
        )
    session.add(
        BlockRow(run_id=run_id, number=number, shifts=shifts.tobytes(), **packed)
    )
    run.revision += 1
    return NEW


def _check_content(geometry: Geometry, body: Block, where: str) -> None:
    """Check a block's stride and shifts against the run's geometry."""
    check_stride(geometry, body.stride_ns, where)
    if len(geometry.ifos) < 2:
        raise InvalidError(
            f"{where}: expected a run of two detectors or more, found "
            f"{geometry.ifos[0]} alone; timeslides shift one against another"
        )
    first = geometry.ifos[0]
    for index, slide in enumerate(body.slides):
        if set(slide.shifts) != set(geometry.ifos):
            raise InvalidError(
                f"{where}, slide {index}: expected a shift for each of "
                f"{', '.join(geometry.ifos)}, found "
                f"{', '.join(sorted(slide.shifts)) or 'none'}"
            )
        if slide.shifts[first] != 0:
            raise InvalidError(
                f"{where}, slide {index}: expected shift 0 s for {first}, which the "
                f"others are shifted against, found {slide.shifts[first]:g} s"
            )


def _shifts_ns(body: Block, ifos: tuple[str, ...]) -> NDArray[np.int64]:
    """Shift of each slide and detector, ns, [slides, ifos]."""
    shifts = [[round(slide.shifts[ifo] * 1e9) for ifo in ifos] for slide in body.slides]
    return np.array(shifts, dtype="<i8")


def unpack_shifts(packed: bytes, ifos: int) -> NDArray[np.int64]:
    """Unpack `BlockRow.shifts`.

    Args:
        packed: The column.
        ifos: Number of the run's detectors.

    Returns:
        Shift of each slide and detector, ns, [slides, ifos].
    """
    return np.frombuffer(packed, "<i8").reshape(-1, ifos)


def _apart(difference: NDArray[np.int64], stretch_ns: int) -> NDArray[np.int64]:
    """Distance of two shifts, ns, circular in the stretch."""
    forward = difference % stretch_ns
    return np.minimum(forward, stretch_ns - forward)


def _check_slides(
    shifts: NDArray[np.int64],
    ifos: tuple[str, ...],
    stretch_ns: int,
    least_ns: int,
    where: str,
) -> None:
    """Check that no two detectors see the same signal, and no two slides are alike."""
    for first, second in zip(*np.triu_indices(len(ifos), 1), strict=True):
        apart = _apart(shifts[:, first] - shifts[:, second], stretch_ns)
        if apart.min() < least_ns:
            slide = int(apart.argmin())
            raise InvalidError(
                f"{where}, slide {slide}: expected at least kernel and filter, "
                f"{least_ns / 1e9:g} s, between any two detectors, found "
                f"{apart[slide] / 1e9:g} s between {ifos[first]} and {ifos[second]} "
                f"(circularly in a stretch of {stretch_ns / 1e9:g} s)"
            )
    for slide in range(1, len(shifts)):
        apart = _apart(shifts[:slide] - shifts[slide], stretch_ns).max(axis=1)
        if apart.min() < least_ns:
            raise InvalidError(
                f"{where}: expected slides at least {least_ns / 1e9:g} s apart at a "
                f"detector or more, found slide {slide} closer to slide "
                f"{int(apart.argmin())}; livetime must not be counted twice"
            )


def _same_stretch(
    session: Session, run_id: str, body: Block, ifos: int, where: str
) -> list[tuple[int, NDArray[np.int64]]]:
    """Find the run's blocks over the same stretch.

    Returns:
        Number and shifts, ns, [slides, ifos], of each.

    Raises:
        ConflictError: A block covers an overlapping stretch that is not the same.
    """
    other = session.execute(
        select(BlockRow.number, BlockRow.start_ns, BlockRow.strides).where(
            BlockRow.run_id == run_id,
            BlockRow.start_ns < body.stop_ns,
            BlockRow.stop_ns > body.start_ns,
            or_(BlockRow.start_ns != body.start_ns, BlockRow.strides != body.strides),
        )
    ).first()
    if other is not None:
        raise ConflictError(
            f"{where} overlaps block {other.number} but is not of the same stretch: "
            f"expected {other.strides} strides from {other.start_ns} ns, found "
            f"{body.strides} strides from {body.start_ns} ns; livetime must not be "
            "counted twice"
        )
    rows = session.execute(
        select(BlockRow.number, BlockRow.shifts)
        .where(BlockRow.run_id == run_id, BlockRow.start_ns == body.start_ns)
        .order_by(BlockRow.number)
    )
    return [(number, unpack_shifts(shifts, ifos)) for number, shifts in rows]


def _repeated_slide(
    shifts: NDArray[np.int64],
    others: list[tuple[int, NDArray[np.int64]]],
    stretch_ns: int,
    least_ns: int,
) -> tuple[int, int, int] | None:
    """Find a slide that repeats one of another block.

    Returns:
        The slide, the other block's slide and the other block's number; None if no
        slide is repeated.
    """
    if not others:
        return None
    stored = np.concatenate([shifts for _, shifts in others])
    for slide, shift in enumerate(shifts):
        apart = _apart(stored - shift, stretch_ns).max(axis=1)
        place = int(apart.argmin())
        if apart[place] < least_ns:
            for number, theirs in others:
                if place < len(theirs):
                    return slide, place, number
                place -= len(theirs)
    return None


def pack(body: Block) -> dict[str, Any]:
    """Make the columns of a block's row that do not depend on the run.

    This takes time, so it runs before the transaction, for which every other writer
    waits.
    """
    slides = body.slides
    counts = np.array([len(slide.strides) for slide in slides], dtype="<i4")
    events = np.empty(int(counts.sum()), dtype=EVENT)
    events["slide"] = np.repeat(np.arange(len(slides)), counts)
    events["stride"] = [value for slide in slides for value in slide.strides]
    events["delay"] = [value for slide in slides for value in slide.delays]
    events["statistic"] = [value for slide in slides for value in slide.statistics]
    valid = np.array(
        [(i, *part) for i, slide in enumerate(slides) for part in slide.valid],
        dtype="<i4",
    ).reshape(-1, 3)
    lengths = np.bincount(
        valid[:, 0], weights=valid[:, 2] - valid[:, 1], minlength=len(slides)
    )
    loudest = [max(slide.statistics, default=np.nan) for slide in slides]
    # The livetime does not matter here: it is stored as a number of strides.
    summary = Background.of(events["statistic"], 1.0, KEPT_PER_BLOCK)
    return {
        "start_ns": body.start_ns,
        "stop_ns": body.stop_ns,
        "stride_ns": body.stride_ns,
        "strides": body.strides,
        "slides": len(slides),
        "event_count": events.size,
        "valid_count": int(lengths.sum()),
        "digest": digest_of(body),
        "peak": summary.loudest,
        "floor": None if math.isinf(summary.floor) else summary.floor,
        "loud": summary.loud.astype("<f4").tobytes(),
        "quiet": summary.quiet.astype("<i4").tobytes(),
        "valid_counts": lengths.astype("<i4").tobytes(),
        "event_counts": counts.tobytes(),
        "loudest": np.array(loudest, dtype="<f4").tobytes(),
        "events": events.tobytes(),
        "valid": valid.tobytes(),
    }
