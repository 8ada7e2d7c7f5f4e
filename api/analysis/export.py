"""Export of a run as an HDF5 file, whose tables h5py and pandas can read."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select
from sqlalchemy.orm import Session

import chirpwatch
from chirpwatch.api.analysis.background import list_slides
from chirpwatch.api.analysis.background_sums import block_events
from chirpwatch.api.analysis.cache import RunCache
from chirpwatch.api.analysis.injections import (
    Injected,
    load_injected,
)
from chirpwatch.api.analysis.progress import total
from chirpwatch.api.analysis.vetoes import (
    Vetoes,
    vetoed_events,
)
from chirpwatch.api.contract.answers import SlideAnswer
from chirpwatch.api.storage.tables import (
    EventRow,
    RunRow,
)
from chirpwatch.background import Background
from chirpwatch.geometry import Geometry

EVENTS_AT_ONCE = 10_000
"""Zero-lag events that are read at a time."""

ZERO_LAG_EVENT = np.dtype(
    [
        ("time_ns", "<i8"),
        ("time", "<f8"),
        ("statistic", "<f8"),
        ("far_per_year", "<f8"),
        ("saturated", "i1"),
    ]
)
BACKGROUND_EVENT = np.dtype(
    [
        ("time_ns", "<i8"),
        ("statistic", "<f4"),
        ("block", "<i4"),
        ("slide", "<i4"),
    ]
)
STORAGE = {"chunks": (65_536,), "compression": "gzip", "compression_opts": 1}


def write_export(session: Session, run: RunRow, path: Path) -> None:
    """Write a run's results outside vetoed time to a new HDF5 file.

    Args:
        session: Reading session, which sees one snapshot.
        run: The run.
        path: Path of the file.
    """
    # The service's cache may be ahead of the session's snapshot; this one is not.
    cache = RunCache()
    own = cache.own_background(session, run)
    vetoes = cache.vetoes(session, run)
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
        events = _zero_lag(session, run, cache.background(session, run), vetoes)
        table = file.create_dataset("zero_lag/events", data=events)
        table.attrs["livetime"] = total(session, run, "zero_lag", cache).livetime
        file["background/slides"] = _slide_table(run, list_slides(run, own))
        file["background"].attrs["livetime"] = own.background.livetime
        table = file.create_dataset(
            "background/events",
            (0,),
            BACKGROUND_EVENT,
            maxshape=(None,),
            **STORAGE,
        )
        for part in _background_events(session, run, vetoes):
            table.resize(len(table) + len(part), axis=0)
            table[len(table) - len(part) :] = part
        injected = load_injected(session, run, cache)
        if injected:
            file["injections"] = _injection_table(injected)
            populations = {i.set.name: i.set.population for i in injected}
            file["injections"].attrs["populations"] = json.dumps(populations)


def _zero_lag(
    session: Session, run: RunRow, background: Background, vetoes: Vetoes
) -> NDArray[np.void]:
    """Table of the zero-lag events outside vetoed time, loudest first."""
    rows = session.execute(
        select(EventRow.time_ns, EventRow.statistic)
        .where(EventRow.run_id == run.id, EventRow.kind == "zero_lag")
        .order_by(EventRow.statistic.desc(), EventRow.time_ns, EventRow.id)
        .execution_options(yield_per=EVENTS_AT_ONCE)
    )
    no_shifts = dict.fromkeys(Geometry.from_json(run.geometry).ifos, 0)
    parts = [np.empty(0, dtype=ZERO_LAG_EVENT)]
    for batch in rows.partitions():
        part = np.empty(len(batch), dtype=ZERO_LAG_EVENT)
        part["time_ns"], part["statistic"] = zip(*batch, strict=True)
        parts.append(part[~vetoed_events(part["time_ns"], no_shifts, vetoes)])
    table = np.concatenate(parts)
    table["time"] = table["time_ns"] / 1e9
    counts = background.counts(table["statistic"])
    table["far_per_year"] = background.rates(counts) if background.livetime else np.nan
    table["saturated"] = counts == 0
    return table


def _slide_table(run: RunRow, rows: Sequence[SlideAnswer]) -> NDArray[np.void]:
    """Table of the timeslides, loudest first."""
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


def _background_events(
    session: Session, run: RunRow, vetoes: Vetoes
) -> Iterator[NDArray[np.void]]:
    """Tables of the background events outside vetoed time, block by block."""
    for block in block_events(session, run, vetoes):
        part = np.empty(block.events.size, dtype=BACKGROUND_EVENT)
        part["time_ns"] = block.times_ns
        part["statistic"] = block.events["statistic"]
        part["slide"] = block.events["slide"]
        part["block"] = block.number
        yield part


def _injection_table(injected: Sequence[Injected]) -> NDArray[np.void]:
    """Table of the injections with their parameters, fates and events."""
    names = sorted({name for i in injected for name in i.row.parameters})
    fate_size = max(len(i.fate) for i in injected)
    set_size = max(len(i.set.name) for i in injected)
    columns = [
        ("time_ns", "<i8"),
        ("snr", "<f8"),
        ("set", f"S{set_size}"),
        ("fate", f"S{fate_size}"),
        ("event_time_ns", "<i8"),
        ("event_statistic", "<f8"),
        *((f"parameter_{name}", "<f8") for name in names),
    ]
    table = np.empty(len(injected), dtype=columns)
    table["time_ns"] = [i.row.time_ns for i in injected]
    table["snr"] = [i.row.snr for i in injected]
    table["set"] = [i.set.name for i in injected]
    table["fate"] = [i.fate for i in injected]
    events = [i.event[0] if i.event else None for i in injected]
    table["event_time_ns"] = [event.time_ns if event else -1 for event in events]
    table["event_statistic"] = [
        event.statistic if event else np.nan for event in events
    ]
    for name in names:
        table[f"parameter_{name}"] = [
            i.row.parameters.get(name, np.nan) for i in injected
        ]
    return table
