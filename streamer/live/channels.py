"""Which channels of a detector's frames are read."""

from collections.abc import Sequence
from dataclasses import dataclass

from chirpwatch.errors import ConfigurationError


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


def chosen_channels(
    ifos: Sequence[str],
    strain: Sequence[str],
    state: Sequence[str],
    bits: Sequence[str],
) -> dict[str, Channels]:
    """What is read of each detector's frames.

    Args:
        ifos: The served model's detectors.
        strain: Channels of the strain: ``NAME`` for every detector, ``IFO:NAME`` for
            one; low-latency distribution's where there is none.
        state: Channels of the state vector, alike; empty: none is read.
        bits: Bits of it, alike, such as ``0,1``.

    Raises:
        ConfigurationError: One is of another detector, or its bits are none.
    """
    strains = _for_each(ifos, "--strain-channel", strain)
    states = _for_each(ifos, "--state-channel", state)
    masks = _for_each(ifos, "--state-bits", bits)
    chosen = {}
    for ifo in ifos:
        usual = low_latency_channels(ifo)
        chosen[ifo] = Channels(
            f"{ifo}:{strains[ifo]}" if ifo in strains else usual.strain,
            (f"{ifo}:{states[ifo]}" if states[ifo] else None)
            if ifo in states
            else usual.state,
            parse_bits(masks[ifo]) if ifo in masks else usual.bits,
        )
    return chosen


def _for_each(
    ifos: Sequence[str], option: str, values: Sequence[str]
) -> dict[str, str]:
    """The value for each detector that an option speaks of."""
    every: dict[str, str] = {}
    own: dict[str, str] = {}
    for value in values:
        ifo, mark, rest = value.rpartition(":")
        if not mark:
            every = dict.fromkeys(ifos, rest)
        elif ifo in ifos:
            own[ifo] = rest
        else:
            raise ConfigurationError(
                f"{option}: expected one of the served model's detectors, "
                f"{', '.join(ifos)}, before the colon, found {value!r}"
            )
    return every | own


def parse_bits(text: str) -> tuple[int, ...]:
    """Bits of a state vector, such as ``0,1``.

    Raises:
        ConfigurationError: It names none, or something else.
    """
    try:
        bits = tuple(int(part) for part in text.split(","))
    except ValueError:
        bits = ()
    if not bits or not all(0 <= bit < 32 for bit in bits):
        raise ConfigurationError(
            f"state bits: expected numbers from 0 to 31, as in 0,1, found {text!r}"
        )
    return bits
