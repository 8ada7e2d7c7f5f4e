"""Which channels of a detector's frames are read."""

from dataclasses import dataclass

STATE_BITS = (0, 1)
"""Bits of the state vector that must be set: HOFT_OK and the intent to observe.

Source: LIGO-G1700234, as `pycbc.frame` has them.
"""


@dataclass(frozen=True)
class Channels:
    """What is read of a detector's frames.

    Attributes:
        strain: Channel of the strain, such as ``H1:GDS-CALIB_STRAIN``.
        state: Channel of the state vector; none: everything is analysed.
        bits: Bits of it that must all be set.
    """

    strain: str
    state: str | None
    bits: tuple[int, ...] = STATE_BITS

    @property
    def mask(self) -> int:
        """The bits as a number."""
        return sum(1 << bit for bit in self.bits)
