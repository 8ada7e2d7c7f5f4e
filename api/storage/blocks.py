"""Storing a block of background: whole, once, and no pair of data twice."""

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
from chirpwatch.api.storage.database import (
    EVENT,
    BlockRow,
)
from chirpwatch.api.storage.store import (
    digest_of,
    locked_run,
)
from chirpwatch.background import Background
from chirpwatch.geometry import Geometry

KEPT_OF_BLOCK = 4096
"""Events of a block that its statistics rest on one by one; the quieter are counted.

A job of 100 slides over 1024 s has 12,000 events or so; those that are counted in bins
are more frequent than one in 25 s.
"""


def put_block(
    session: Session, run_id: str, number: int, body: Block, packed: dict[str, Any]
) -> bool:
    """Store a block as `pack` made it ready; returns whether it is new."""
    run = locked_run(session, run_id)
    stored = session.scalar(
        select(BlockRow.digest).where(
            BlockRow.run_id == run_id, BlockRow.number == number
        )
    )
    if stored == packed["digest"]:
        return False
    where = f"background block {number} of run {run_id!r}"
    if stored is not None:
        raise ConflictError(f"{where} exists with other content; nothing was changed")
    geometry = Geometry.from_json(run.geometry)
    _check_content(geometry, body, where)
    shifts = _shifts_ns(body, geometry.ifos)
    least_ns = round((geometry.kernel_length + geometry.fduration) * 1e9)
    stretch_ns = body.strides * body.stride_ns
    _check_slides(shifts, geometry.ifos, stretch_ns, least_ns, where)
    others = _same_stretch(session, run_id, body, len(geometry.ifos), where)
    alike = _too_close(shifts, others, stretch_ns, least_ns)
    if alike is not None:
        slide, other, name = alike
        raise ConflictError(
            f"{where}: slide {slide} lies within {least_ns / 1e9:g} s of slide {other} "
            f"of block {name} at every detector; livetime must not be counted twice"
        )
    session.add(
        BlockRow(run_id=run_id, number=number, shifts=shifts.tobytes(), **packed)
    )
    run.revision += 1
    return True


def _check_content(geometry: Geometry, body: Block, where: str) -> None:
    stride_ns = geometry.stride_ns
    if body.stride_ns != stride_ns:
        raise InvalidError(
            f"{where}: expected strides of {stride_ns} ns as in the run's geometry, "
            f"found {body.stride_ns} ns"
        )
    if len(geometry.ifos) < 2:
        raise InvalidError(
            f"{where}: timeslides need two detectors or more, found "
            f"{geometry.ifos[0]} alone"
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
                f"{where}, slide {index}: expected shift 0 s of {first}, which the "
                f"others are shifted against, found {slide.shifts[first]:g} s"
            )


def _shifts_ns(body: Block, ifos: tuple[str, ...]) -> NDArray[np.int64]:
    """Shift of each slide and detector, ns, [slides, ifos]."""
    shifts = [[round(slide.shifts[ifo] * 1e9) for ifo in ifos] for slide in body.slides]
    return np.array(shifts, dtype="<i8")


def unpack_shifts(packed: bytes, ifos: int) -> NDArray[np.int64]:
    """The same of `BlockRow.shifts` and the number of the run's detectors."""
    return np.frombuffer(packed, "<i8").reshape(-1, ifos)


def _apart(difference: NDArray[np.int64], stretch_ns: int) -> NDArray[np.int64]:
    """How far apart two shifts are on the circle that the stretch is, ns."""
    turned = difference % stretch_ns
    return np.minimum(turned, stretch_ns - turned)


def _check_slides(
    shifts: NDArray[np.int64],
    ifos: tuple[str, ...],
    stretch_ns: int,
    least_ns: int,
    where: str,
) -> None:
    """Refuse detectors that may see the same signal, and slides that are alike."""
    for one, other in zip(*np.triu_indices(len(ifos), 1), strict=True):
        apart = _apart(shifts[:, one] - shifts[:, other], stretch_ns)
        if apart.min() < least_ns:
            slide = int(apart.argmin())
            raise InvalidError(
                f"{where}, slide {slide}: expected at least kernel and filter, "
                f"{least_ns / 1e9:g} s, between any two detectors, found "
                f"{apart[slide] / 1e9:g} s between {ifos[one]} and {ifos[other]} "
                f"around a stretch of {stretch_ns / 1e9:g} s"
            )
    for slide in range(1, len(shifts)):
        apart = _apart(shifts[:slide] - shifts[slide], stretch_ns).max(axis=1)
        if apart.min() < least_ns:
            raise InvalidError(
                f"{where}: slide {slide} lies within {least_ns / 1e9:g} s of slide "
                f"{int(apart.argmin())} at every detector; livetime must not be "
                "counted twice"
            )


def _same_stretch(
    session: Session, run_id: str, body: Block, ifos: int, where: str
) -> list[tuple[int, NDArray[np.int64]]]:
    """Number and shifts, ns, of the run's other blocks over the same stretch.

    Raises:
        RefusalError: A block overlaps this one and is of another stretch.
    """
    here = (BlockRow.run_id == run_id, BlockRow.start_ns < body.stop_ns)
    other = session.execute(
        select(BlockRow.number, BlockRow.start_ns, BlockRow.strides).where(
            *here,
            BlockRow.stop_ns > body.start_ns,
            or_(BlockRow.start_ns != body.start_ns, BlockRow.strides != body.strides),
        )
    ).first()
    if other is not None:
        raise ConflictError(
            f"{where} overlaps block {other.number}, {other.strides} strides from "
            f"{other.start_ns} ns, and is not of the same stretch: found "
            f"{body.strides} strides from {body.start_ns} ns; livetime must not be "
            "counted twice"
        )
    rows = session.execute(
        select(BlockRow.number, BlockRow.shifts)
        .where(BlockRow.run_id == run_id, BlockRow.start_ns == body.start_ns)
        .order_by(BlockRow.number)
    )
    return [(number, unpack_shifts(shifts, ifos)) for number, shifts in rows]


def _too_close(
    shifts: NDArray[np.int64],
    others: list[tuple[int, NDArray[np.int64]]],
    stretch_ns: int,
    least_ns: int,
) -> tuple[int, int, int] | None:
    """The first slide that is like one of another block: both slides, the block."""
    if not others:
        return None
    there = np.concatenate([shifts for _, shifts in others])
    for slide, shift in enumerate(shifts):
        apart = _apart(there - shift, stretch_ns).max(axis=1)
        place = int(apart.argmin())
        if apart[place] < least_ns:
            for number, theirs in others:
                if place < len(theirs):
                    return slide, place, number
                place -= len(theirs)
    return None


def pack(body: Block) -> dict[str, Any]:
    """The columns of a block's row that it alone says.

    They are made before the transaction, in which every other writer waits.
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
    # Livetime is counted in strides, apart.
    summary = Background.of(events["statistic"], 1.0, KEPT_OF_BLOCK)
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
