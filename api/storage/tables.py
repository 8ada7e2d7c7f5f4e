"""Tables of the database.

Times are GPS nanoseconds in 64-bit integers. Packed columns are little-endian. The
tables hold on SQLite and PostgreSQL alike.
"""

import time
from datetime import UTC, datetime
from typing import Any

import numpy as np
from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    DateTime,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    Row,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

# SQLite autoincrements columns of type INTEGER only, which holds 64 bits there.
BigKey = BigInteger().with_variant(Integer, "sqlite")


class Base(DeclarativeBase):
    """Base class of the tables."""

    type_annotation_map = {dict[str, Any]: JSON, float: Double, bytes: LargeBinary}  # noqa: RUF012 - SQLAlchemy reads it from the class


class UtcTime(TypeDecorator[datetime]):
    """Date and time in UTC; SQLite does not store the time zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_result_value(
        self, value: datetime | None, _dialect: Dialect
    ) -> datetime | None:
        """Attach UTC to a SQLite time; convert a PostgreSQL time to UTC."""
        if value is None or value.tzinfo is not None:
            return value if value is None else value.astimezone(UTC)
        return value.replace(tzinfo=UTC)


class RunRow(Base):
    """A run.

    `revision` counts changes of the run and its results, `vetoing` changes of its
    vetoes. `background_run` names the run whose background gives this run's
    false-alarm rates; null for its own.
    """

    __tablename__ = "runs"
    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    name: Mapped[str] = mapped_column(Text)
    model: Mapped[str] = mapped_column(String(64))
    geometry: Mapped[str] = mapped_column(Text)
    simulated: Mapped[bool] = mapped_column(Boolean)
    data: Mapped[str] = mapped_column(Text)
    planned_background: Mapped[float | None]
    background_run: Mapped[str | None] = mapped_column(ForeignKey("runs.id"))
    state: Mapped[str] = mapped_column(String(16), default="running")
    message: Mapped[str | None] = mapped_column(Text)
    throughput: Mapped[float | None]
    latency_ms: Mapped[dict[str, Any] | None]
    revision: Mapped[int] = mapped_column(BigInteger, default=0)
    vetoing: Mapped[int] = mapped_column(BigInteger, default=0)
    created: Mapped[datetime] = mapped_column(
        UtcTime, default=lambda: datetime.now(UTC)
    )
    updated: Mapped[datetime] = mapped_column(
        UtcTime,
        default=lambda: datetime.now(UTC),
        onupdate=lambda: datetime.now(UTC),
    )


class StreamRow(Base):
    """A stream of a run.

    `relative_shifts` are the shifts less the first detector's, `origin_ns`: streams
    with the same relative shifts pair the same data, at other times. `shifts` and
    `relative_shifts` are canonical JSON, so that equal shifts are equal text.
    """

    __tablename__ = "streams"
    __table_args__ = (UniqueConstraint("run_id", "name"),)
    id: Mapped[int] = mapped_column(BigKey, primary_key=True)
    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id"))
    name: Mapped[str] = mapped_column(String(64))
    kind: Mapped[str] = mapped_column(String(16))
    shifts: Mapped[str] = mapped_column(Text)
    relative_shifts: Mapped[str] = mapped_column(Text)
    origin_ns: Mapped[int] = mapped_column(BigInteger)
    segment: Mapped[str] = mapped_column(String(64))
    duration: Mapped[float]
    injection_set: Mapped[str | None] = mapped_column(String(64))
    cluster_length: Mapped[float]


class ChunkRow(Base):
    """A chunk: scores of consecutive strides (float32) and their validity bits.

    `run_id` repeats the stream's, for the index. Livetime is summed from
    `valid_count`. `lowest` and `highest` are the extremes of the valid scores, null
    without any. `arrived` is the time of arrival, Unix time, s.
    """

    __tablename__ = "chunks"
    __table_args__ = (
        UniqueConstraint("stream_id", "number"),
        Index("chunks_by_time", "stream_id", "stop_ns"),
        Index("chunks_by_arrival", "run_id", "id"),
    )
    id: Mapped[int] = mapped_column(BigKey, primary_key=True)
    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id"))
    stream_id: Mapped[int] = mapped_column(ForeignKey("streams.id"))
    number: Mapped[int] = mapped_column(BigInteger)
    start_ns: Mapped[int] = mapped_column(BigInteger)
    stop_ns: Mapped[int] = mapped_column(BigInteger)
    stride_ns: Mapped[int] = mapped_column(BigInteger)
    size: Mapped[int] = mapped_column(Integer)
    valid_count: Mapped[int] = mapped_column(Integer)
    event_count: Mapped[int] = mapped_column(Integer)
    lowest: Mapped[float | None]
    highest: Mapped[float | None]
    arrived: Mapped[float] = mapped_column(default=time.time)
    last: Mapped[bool] = mapped_column(Boolean)
    digest: Mapped[str] = mapped_column(String(64))
    valid: Mapped[bytes]
    scores: Mapped[bytes]


class EventRow(Base):
    """An event of a chunk; `run_id` and `kind` repeat the stream's, for the index."""

    __tablename__ = "events"
    __table_args__ = (
        Index("events_by_statistic", "run_id", "kind", "statistic"),
        Index("events_by_time", "stream_id", "time_ns"),
    )
    id: Mapped[int] = mapped_column(BigKey, primary_key=True)
    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id"))
    kind: Mapped[str] = mapped_column(String(16))
    stream_id: Mapped[int] = mapped_column(ForeignKey("streams.id"))
    chunk_id: Mapped[int] = mapped_column(ForeignKey("chunks.id"), index=True)
    time_ns: Mapped[int] = mapped_column(BigInteger)
    statistic: Mapped[float]


Columns = Row[*tuple[Any, ...]]
"""A row of a query for some columns; its attributes have the columns' names."""

EVENT = np.dtype(
    [("slide", "<i4"), ("stride", "<i4"), ("delay", "<f4"), ("statistic", "<f4")]
)
"""A background event in `BlockRow.events`; `slide` counts from 0, `delay` is in s."""


class BlockRow(Base):
    """A block: background from one stretch of strain at many timeslides.

    Packed columns, for each slide: `shifts` (int64, ns, one for each detector of the
    run's geometry), `valid_counts` (int32), `event_counts` (int32) and `loudest`
    (float32, NaN without events). `events` are packed as `EVENT`, `valid` as slide,
    begin and end of each range of strides (int32).

    `floor`, `loud` (float32) and `quiet` (int32) are the events' statistics as
    `chirpwatch.background.Background` keeps them; `floor` is null where `loud` has all
    events. `peak` is the largest statistic.

    The columns that are read most come first: SQLite reads through a row's large
    columns to reach later ones.
    """

    __tablename__ = "blocks"
    __table_args__ = (
        UniqueConstraint("run_id", "number"),
        Index("blocks_by_time", "run_id", "start_ns"),
        Index("blocks_by_arrival", "run_id", "id"),
    )
    id: Mapped[int] = mapped_column(BigKey, primary_key=True)
    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id"))
    number: Mapped[int] = mapped_column(BigInteger)
    start_ns: Mapped[int] = mapped_column(BigInteger)
    stop_ns: Mapped[int] = mapped_column(BigInteger)
    stride_ns: Mapped[int] = mapped_column(BigInteger)
    strides: Mapped[int] = mapped_column(Integer)
    slides: Mapped[int] = mapped_column(Integer)
    event_count: Mapped[int] = mapped_column(Integer)
    valid_count: Mapped[int] = mapped_column(BigInteger)
    digest: Mapped[str] = mapped_column(String(64))
    peak: Mapped[float | None]
    floor: Mapped[float | None]
    shifts: Mapped[bytes]
    loud: Mapped[bytes]
    quiet: Mapped[bytes]
    valid_counts: Mapped[bytes]
    event_counts: Mapped[bytes]
    loudest: Mapped[bytes]
    events: Mapped[bytes]
    valid: Mapped[bytes]


class VetoRow(Base):
    """A veto; `segments` packs starts and ends, GPS ns (int64)."""

    __tablename__ = "vetoes"
    __table_args__ = (UniqueConstraint("run_id", "name"),)
    id: Mapped[int] = mapped_column(BigKey, primary_key=True)
    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id"))
    name: Mapped[str] = mapped_column(String(64))
    reason: Mapped[str | None] = mapped_column(Text)
    ifos: Mapped[list[str]] = mapped_column(JSON)
    segments: Mapped[bytes]
    digest: Mapped[str] = mapped_column(String(64))


class StrainRow(Base):
    """Strain around an event; `strain` packs one detector after the other (float32)."""

    __tablename__ = "strain"
    __table_args__ = (UniqueConstraint("run_id", "start_ns"),)
    id: Mapped[int] = mapped_column(BigKey, primary_key=True)
    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id"))
    start_ns: Mapped[int] = mapped_column(BigInteger)
    stop_ns: Mapped[int] = mapped_column(BigInteger)
    sample_rate: Mapped[int] = mapped_column(Integer)
    size: Mapped[int] = mapped_column(Integer)
    ifos: Mapped[list[str]] = mapped_column(JSON)
    digest: Mapped[str] = mapped_column(String(64))
    strain: Mapped[bytes]


class InjectionSetRow(Base):
    """An injection set; all its injections are stored at once."""

    __tablename__ = "injection_sets"
    __table_args__ = (UniqueConstraint("run_id", "name"),)
    id: Mapped[int] = mapped_column(BigKey, primary_key=True)
    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id"))
    name: Mapped[str] = mapped_column(String(64))
    size: Mapped[int] = mapped_column(Integer)
    population: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    digest: Mapped[str] = mapped_column(String(64))


class InjectionRow(Base):
    """An injection of a set."""

    __tablename__ = "injections"
    id: Mapped[int] = mapped_column(BigKey, primary_key=True)
    set_id: Mapped[int] = mapped_column(ForeignKey("injection_sets.id"), index=True)
    time_ns: Mapped[int] = mapped_column(BigInteger)
    snr: Mapped[float]
    parameters: Mapped[dict[str, Any]]
