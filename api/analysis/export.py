"""A run as one HDF5 file: tables that h5py and pandas open as they are."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select
from sqlalchemy.orm import Session

import chirpwatch
from chirpwatch.api.analysis.background import slides
from chirpwatch.api.analysis.progress import total
from chirpwatch.api.analysis.sensitivity import (
    Injected,
    load_injected,
)
from chirpwatch.api.analysis.summaries import (
    Accumulated,
    block_times,
    vetoed_block_events,
)
from chirpwatch.api.analysis.vetoes import (
    Vetoes,
    vetoed_events,
)
from chirpwatch.api.contract.answers import Slide
from chirpwatch.api.storage.database import (
    EVENT,
    BlockRow,
    EventRow,
    RunRow,
)
from chirpwatch.background import Background
from chirpwatch.geometry import Geometry

BATCH = 16
"""Blocks that are read at a time."""

EVENTS = 10_000
"""Zero-lag events that are read at a time."""

ZERO_LAG = np.dtype(
    [
        ("time_ns", "<i8"),
        ("time", "<f8"),
        ("statistic", "<f8"),
        ("far_per_year", "<f8"),
        ("saturated", "i1"),
    ]
)
BACKGROUND = np.dtype(
    [
        ("time_ns", "<i8"),
        ("statistic", "<f4"),
        ("block", "<i4"),
        ("slide", "<i4"),
    ]
)
STORAGE = {"chunks": (65_536,), "compression": "gzip", "compression_opts": 1}


def write_export(session: Session, run: RunRow, path: Path) -> None:
    """Write all that is known of a run; what vetoes take is left out.

    Args:
        session: A reading one: everything is of one moment.
        run: The run.
        path: The file, which is made.
    """
    # What is kept ready may be newer than the session's moment.
    accumulated = Accumulated()
    known = accumulated.background(session, run)
    vetoes = accumulated.vetoes(session, run)
    with h5py.File(path, "w") as file:
        file.attrs.update(
            {
                "run": run.id,
                "name": run.name,
                "model": run.model,
                "geometry": run.geometry,
                "simulated": run.simulated,
                "data": run.data,
                "vetoes": list(vetoes.names),
                "chirpwatch": chirpwatch.__version__,
            }
        )
        events = _zero_lag(session, run, accumulated.noise(session, run), vetoes)
        table = file.create_dataset("zero_lag/events", data=events)
        table.attrs["livetime"] = total(session, run, "zero_lag", accumulated).livetime
        rows = slides(run, known)
        file["background/slides"] = _slide_table(run, rows)
        file["background"].attrs["livetime"] = known.background.livetime
        table = file.create_dataset(
            "background/events", (0,), BACKGROUND, maxshape=(None,), **STORAGE
        )
        for part in _background(session, run, vetoes):
            table.resize(len(table) + len(part), axis=0)
            table[len(table) - len(part) :] = part
        injected = load_injected(session, run, accumulated)
        if injected:
            file["injections"] = _injection_table(injected)
            sets = {one.set.name: one.set.population for one in injected}
            file["injections"].attrs["populations"] = json.dumps(sets)


def _zero_lag(
    session: Session, run: RunRow, noise: Background, vetoes: Vetoes
) -> NDArray[np.void]:
    """Zero-lag events, loudest first."""
    rows = session.execute(
        select(EventRow.time_ns, EventRow.statistic)
        .where(EventRow.run_id == run.id, EventRow.kind == "zero_lag")
        .order_by(EventRow.statistic.desc(), EventRow.time_ns, EventRow.id)
        .execution_options(yield_per=EVENTS)
    )
    still = dict.fromkeys(Geometry.from_json(run.geometry).ifos, 0)
    parts = [np.empty(0, dtype=ZERO_LAG)]
    for some in rows.partitions():
        part = np.empty(len(some), dtype=ZERO_LAG)
        part["time_ns"], part["statistic"] = zip(*some, strict=True)
        parts.append(part[~vetoed_events(part["time_ns"], still, vetoes)])
    table = np.concatenate(parts)
    table["time"] = table["time_ns"] / 1e9
    counts = noise.counts(table["statistic"])
    table["far_per_year"] = noise.rates(counts) if noise.livetime else np.nan
    table["saturated"] = counts == 0
    return table


def _slide_table(run: RunRow, rows: Sequence[Slide]) -> NDArray[np.void]:
    ifos = Geometry.from_json(run.geometry).ifos
    columns = [
        *((f"shift_{ifo}", "<f8") for ifo in ifos),
        ("blocks", "<i8"),
        ("events", "<i8"),
        ("livetime", "<f8"),
        ("loudest", "<f8"),
    ]
    table = np.empty(len(rows), dtype=columns)
    for ifo in ifos:
        table[f"shift_{ifo}"] = [row.shifts[ifo] for row in rows]
    for name in ("blocks", "events", "livetime"):
        table[name] = [getattr(row, name) for row in rows]
    table["loudest"] = [np.nan if row.loudest is None else row.loudest for row in rows]
    return table


def _background(
    session: Session, run: RunRow, vetoes: Vetoes
) -> Iterator[NDArray[np.void]]:
    """Background events, block by block."""
    ifos = Geometry.from_json(run.geometry).ifos
    rows = session.execute(
        select(
            BlockRow.number,
            BlockRow.start_ns,
            BlockRow.stop_ns,
            BlockRow.stride_ns,
            BlockRow.shifts,
            BlockRow.events,
        )
        .where(BlockRow.run_id == run.id)
        .order_by(BlockRow.number)
        .execution_options(yield_per=BATCH)
    )
    for row in rows:
        events = np.frombuffer(row.events, dtype=EVENT)
        events = events[~vetoed_block_events(row, events, ifos, vetoes)]
        part = np.empty(events.size, dtype=BACKGROUND)
        part["time_ns"] = block_times(row, events)
        part["statistic"], part["slide"] = events["statistic"], events["slide"]
        part["block"] = row.number
        yield part


def _injection_table(injected: Sequence[Injected]) -> NDArray[np.void]:
    """Every injection with its parameters, and the event that belongs to it."""
    names = sorted({name for one in injected for name in one.row.parameters})
    words = max(len(one.fate) for one in injected)
    sets = max(len(one.set.name) for one in injected)
    columns = [
        ("time_ns", "<i8"),
        ("snr", "<f8"),
        ("set", f"S{sets}"),
        ("fate", f"S{words}"),
        ("event_time_ns", "<i8"),
        ("event_statistic", "<f8"),
        *((f"parameter_{name}", "<f8") for name in names),
    ]
    table = np.empty(len(injected), dtype=columns)
    table["time_ns"] = [one.row.time_ns for one in injected]
    table["snr"] = [one.row.snr for one in injected]
    table["set"] = [one.set.name for one in injected]
    table["fate"] = [one.fate for one in injected]
    events = [one.event[0] if one.event else None for one in injected]
    table["event_time_ns"] = [event.time_ns if event else -1 for event in events]
    table["event_statistic"] = [
        event.statistic if event else np.nan for event in events
    ]
    for name in names:
        table[f"parameter_{name}"] = [
            one.row.parameters.get(name, np.nan) for one in injected
        ]
    return table
