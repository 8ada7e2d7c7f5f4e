"""Types of fields that several requests and answers share."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

# GPS 4e9 s lies in the year 2106; sums of two such times still fit 64 bits.
MAX_TIME_NS = 4_000_000_000_000_000_000
"""Latest GPS time that the service accepts, ns."""

Kind = Literal["zero_lag", "injections"]
"""Data that a stream was scored from: as recorded, or with injections."""

EventKind = Literal["zero_lag", "background", "injections"]
State = Literal["running", "complete", "failed"]
Identifier = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
TimeNs = Annotated[
    int,
    Field(ge=0, le=MAX_TIME_NS, description="GPS time, integer ns"),
]
Ifo = Annotated[str, StringConstraints(pattern=r"^[A-Z][0-9]$")]
"""Prefix of a detector, such as H1."""
