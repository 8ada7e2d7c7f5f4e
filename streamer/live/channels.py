"""Which channels are read from a detector's frame files."""

from collections.abc import Sequence
from dataclasses import dataclass

from chirpwatch.errors import ConfigurationError


@dataclass(frozen=True)
class Channels:
    """The channels that are read from a detector's frame files.

    Attributes:
        strain: Channel of the strain, such as ``H1:GDS-CALIB_STRAIN``.
        state: Channel of the state vector; None: every second is analysed.
        bits: Bits of the state vector that must all be set.
    """

    strain: str
    state: str | None
    bits: tuple[int, ...] = (0, 1)

    @property
    def mask(self) -> int:
        """The bits as a bit mask."""
        return sum(1 << bit for bit in self.bits)


def low_latency_channels(ifo: str) -> Channels:
    """The default channels of a detector's low-latency frame files.

    The bits that must be set are HOFT_OK (0) and the intent to observe (1), for LIGO
    and Virgo (LIGO-G1700234, LIGO-G1801125), and Virgo's good data quality (10), as in
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
    """The channels of each detector, from the command's options.

    Args:
        ifos: The served model's detectors.
        strain: Channels of the strain: ``NAME`` for every detector, ``IFO:NAME`` for a
            single detector. Defaults are those of ``low_latency_channels``.
        state: Channels of the state vector, in the same form; an empty name: no state
            vector is read.
        bits: Bits of the state vector, in the same form, such as ``0,1``.

    Raises:
        ConfigurationError: A detector is not one of the model's, or bits are invalid.
    """
    strains = _for_each(ifos, "--strain-channel", strain)
    states = _for_each(ifos, "--state-channel", state)
    masks = _for_each(ifos, "--state-bits", bits)
    chosen = {}
    for ifo in ifos:
        default = low_latency_channels(ifo)
        chosen[ifo] = Channels(
            f"{ifo}:{strains[ifo]}" if ifo in strains else default.strain,
            (f"{ifo}:{states[ifo]}" if states[ifo] else None)
            if ifo in states
            else default.state,
            parse_bits(masks[ifo]) if ifo in masks else default.bits,
        )
    return chosen


def _for_each(
    ifos: Sequence[str], option: str, values: Sequence[str]
) -> dict[str, str]:
    """The value of an option for each detector that it sets."""
    shared: dict[str, str] = {}
    own: dict[str, str] = {}
    for value in values:
        ifo, mark, rest = value.rpartition(":")
        if not mark:
            shared = dict.fromkeys(ifos, rest)
        elif ifo in ifos:
            own[ifo] = rest
        else:
            raise ConfigurationError(
                f"{option}: expected one of the served model's detectors, "
                f"{', '.join(ifos)}, before the colon, found {value!r}"
            )
    return shared | own


def parse_bits(text: str) -> tuple[int, ...]:
    """Parse bits of a state vector, such as ``0,1``.

    Raises:
        ConfigurationError: The text is not a list of numbers from 0 to 31.
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
