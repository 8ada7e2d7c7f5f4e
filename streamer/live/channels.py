"""Which channels of a detector's frames are read."""

from dataclasses import dataclass


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
    bits: tuple[int, ...] = (0, 1)

    @property
    def mask(self) -> int:
        """The bits as a number."""
        return sum(1 << bit for bit in self.bits)


def low_latency_channels(ifo: str) -> Channels:
    """What low-latency distribution has of a detector: LIGO's names, or Virgo's.

    The bits that must be set are HOFT_OK (0) and the intent to observe (1), alike in
    both (LIGO-G1700234, LIGO-G1801125), and Virgo's good data quality (10), as in
    `pycbc.frame` and GWCelery's `detchar`.
    """
    if ifo == "V1":
        return Channels(
            "V1:Hrec_hoft_16384Hz", "V1:DQ_ANALYSIS_STATE_VECTOR", (0, 1, 10)
        )
    return Channels(f"{ifo}:GDS-CALIB_STRAIN", f"{ifo}:GDS-CALIB_STATE_VECTOR")
