"""Waveforms of mergers from ml4gw, antenna responses and light-travel delays.

The merger time is the peak of the (2, 2) mode's amplitude. For a precessing merger it
is the peak of |h_plus|² + |h_cross|² of the analytic polarizations, which is the same
without precession.
"""

from typing import Any, TypeVar

import torch
from ml4gw.distributions import Cosine, Sine
from ml4gw.gw import compute_antenna_responses, get_ifo_geometry
from ml4gw.waveforms import IMRPhenomD, IMRPhenomPv2
from ml4gw.waveforms.conversion import chirp_mass_and_mass_ratio_to_components
from ml4gw.waveforms.generator import TimeDomainCBCWaveformGenerator
from numpy.typing import NDArray
from torch import Tensor

from chirpwatch.errors import ConfigurationError

SPEED_OF_LIGHT = 299_792_458.0
"""m/s."""

MIN_FREQUENCY = 20.0
"""Frequency at which waveforms start, and their reference frequency, Hz."""

TAPER_LENGTH = 0.125
"""Length of the taper at a waveform's start, s."""

WAVEFORM_BATCH = 64
"""Waveforms generated at once."""

_Values = TypeVar("_Values", Tensor, NDArray[Any])


def chirp_mass(mass_1: _Values, mass_2: _Values) -> _Values:
    """Chirp mass of two component masses, in their unit, [n]."""
    result: _Values = (mass_1 * mass_2) ** 0.6 / (mass_1 + mass_2) ** 0.2
    return result


def face_on_waveforms(
    mass_1: Tensor,
    mass_2: Tensor,
    spin_1: Tensor,
    spin_2: Tensor,
    size: int,
    merger_size: int,
    sample_rate: int,
) -> Tensor:
    """Generate the plus polarization of face-on mergers at 100 Mpc.

    The spectrum of the cross polarization is ``-1j`` times that of plus; the
    inclination scales the two (``antenna_amplitudes``).

    Args:
        mass_1: Heavier mass, detector frame, solar masses, [n].
        mass_2: Lighter mass, detector frame, solar masses, [n].
        spin_1: Heavier component's aligned spin, dimensionless, [n].
        spin_2: Lighter component's aligned spin, dimensionless, [n].
        size: Number of samples.
        merger_size: Sample of the merger.
        sample_rate: Hz.

    Returns:
        Strain of IMRPhenomD, float64, [n, size]. An inspiral that is longer is cut at
        the first sample, with a taper of 1/8 s; nothing wraps around.
    """
    chirp_masses = chirp_mass(mass_1, mass_2)
    # ml4gw's mass ratio is lighter over heavier.
    mass_ratio = mass_2 / mass_1
    waveforms = torch.empty(len(mass_1), size, dtype=torch.float64)
    generator = TimeDomainCBCWaveformGenerator(
        IMRPhenomD(), sample_rate, size / sample_rate, MIN_FREQUENCY, MIN_FREQUENCY, 0.5
    )
    taper = _taper(size, sample_rate)
    # Sorted, since the longest waveform of a batch sets the length of all.
    order = torch.argsort(chirp_masses)
    for batch in torch.split(order, WAVEFORM_BATCH):
        m1, m2 = chirp_mass_and_mass_ratio_to_components(
            chirp_masses[batch], mass_ratio[batch]
        )
        zeros = torch.zeros(len(batch))
        _, plus = generator.generate_conditioned_fd_waveform(
            mass_1=m1,
            mass_2=m2,
            s1z=spin_1[batch],
            s2z=spin_2[batch],
            chirp_mass=chirp_masses[batch],
            mass_ratio=mass_ratio[batch],
            chi1=spin_1[batch],
            chi2=spin_2[batch],
            distance=zeros + 100.0,
            phic=zeros,
            inclination=zeros,
        )
        analytic = _analytic(plus, sample_rate)
        peaks = analytic.abs().argmax(-1)
        waveforms[batch] = _placed(analytic.real, peaks, size, merger_size)
        waveforms[batch] *= taper
    return waveforms


def face_on_amplitudes(
    mass_1: Tensor, mass_2: Tensor, spin_1: Tensor, spin_2: Tensor, frequencies: Tensor
) -> Tensor:
    """Amplitude spectra of face-on mergers at 100 Mpc, the complete inspiral included.

    Args:
        mass_1: Heavier mass, detector frame, solar masses, [n].
        mass_2: Lighter mass, detector frame, solar masses, [n].
        spin_1: Heavier component's aligned spin, dimensionless, [n].
        spin_2: Lighter component's aligned spin, dimensionless, [n].
        frequencies: Hz, above 0, [bins].

    Returns:
        Modulus of the plus polarization (IMRPhenomD), strain per Hz, float64, [n,
        bins].
    """
    chirp_masses = chirp_mass(mass_1, mass_2)
    zeros = torch.zeros(len(mass_1), dtype=torch.float64)
    _, plus = IMRPhenomD()(
        frequencies.double(),
        chirp_masses.double(),
        (mass_2 / mass_1).double(),
        spin_1.double(),
        spin_2.double(),
        zeros + 100.0,
        zeros,
        zeros,
        MIN_FREQUENCY,
    )
    amplitudes: Tensor = plus.abs()
    return amplitudes


def precessing_polarizations(
    parameters: dict[str, Tensor], size: int, merger_size: int, sample_rate: int
) -> tuple[Tensor, Tensor]:
    """Generate both polarizations of precessing mergers at 100 Mpc.

    Args:
        parameters: Columns [n]: ``mass_1`` (heavier) and ``mass_2``, detector frame,
            solar masses; dimensionless spins ``spin_1x`` … ``spin_2z`` at 20 Hz, with z
            along the orbital angular momentum; ``inclination`` and ``phase``, rad.
        size: Number of samples.
        merger_size: Sample of the merger.
        sample_rate: Hz.

    Returns:
        Plus and cross polarization of IMRPhenomPv2, strain, float64, [n, size], cut and
        tapered as by ``face_on_waveforms``.
    """
    columns = {name: column.double() for name, column in parameters.items()}
    mass_1, mass_2 = columns["mass_1"], columns["mass_2"]
    chirp_masses = chirp_mass(mass_1, mass_2)
    generator = TimeDomainCBCWaveformGenerator(
        IMRPhenomPv2(),
        sample_rate,
        size / sample_rate,
        MIN_FREQUENCY,
        MIN_FREQUENCY,
        0.5,
    )
    placed = torch.empty(2, len(mass_1), size, dtype=torch.float64)
    # Sorted, since the longest waveform of a batch sets the length of all.
    for batch in torch.split(torch.argsort(chirp_masses), WAVEFORM_BATCH):
        rows = {name: column[batch] for name, column in columns.items()}
        cross, plus = generator.generate_conditioned_fd_waveform(
            mass_1=rows["mass_1"],
            mass_2=rows["mass_2"],
            chirp_mass=chirp_masses[batch],
            # ml4gw's mass ratio is lighter over heavier.
            mass_ratio=rows["mass_2"] / rows["mass_1"],
            **{f"s{i}{axis}": rows[f"spin_{i}{axis}"] for i in "12" for axis in "xyz"},
            distance=torch.full_like(rows["mass_1"], 100.0),
            phic=rows["phase"],
            inclination=rows["inclination"],
        )
        placed[:, batch] = place_polarizations(
            plus, cross, size, merger_size, sample_rate
        )
    return placed[0], placed[1]


def place_polarizations(
    plus: Tensor, cross: Tensor, size: int, merger_size: int, sample_rate: int
) -> Tensor:
    """Transform the polarizations' spectra to series with the merger at a given sample.

    Args:
        plus: Spectrum of the plus polarization, strain per Hz, [n, bins].
        cross: Spectrum of the cross polarization, strain per Hz, [n, bins].
        size: Number of samples.
        merger_size: Sample of the merger.
        sample_rate: Hz.

    Returns:
        Plus and cross polarization, strain, float64, [2, n, size], cut and tapered as
        by ``face_on_waveforms``.
    """
    pair = [_analytic(spectrum, sample_rate) for spectrum in (plus, cross)]
    peaks = torch.stack([wave.abs() ** 2 for wave in pair]).sum(0).argmax(-1)
    placed = [_placed(wave.real, peaks, size, merger_size) for wave in pair]
    return torch.stack(placed) * _taper(size, sample_rate)


def _analytic(spectrum: Tensor, sample_rate: int) -> Tensor:
    """Analytic series of a one-sided spectrum; its modulus is the envelope."""
    spectrum = spectrum.to(torch.complex128)
    padded = torch.zeros(
        len(spectrum), 2 * (spectrum.shape[-1] - 1), dtype=torch.complex128
    )
    padded[:, : spectrum.shape[-1]] = 2 * spectrum
    result: Tensor = torch.fft.ifft(padded) * sample_rate
    return result


def _placed(waves: Tensor, peaks: Tensor, size: int, merger_size: int) -> Tensor:
    """Cut or zero-pad each wave so that its peak lies at sample ``merger_size``."""
    placed = torch.zeros(len(waves), size, dtype=torch.float64)
    for row, (wave, peak) in enumerate(zip(waves, peaks.tolist(), strict=True)):
        before, after = min(peak, merger_size), size - merger_size
        piece = wave[peak - before : peak + after]
        start = merger_size - before
        placed[row, start : start + len(piece)] = piece
    return placed


def _taper(size: int, sample_rate: int) -> Tensor:
    """Window that rises from 0 to 1 over ``TAPER_LENGTH``, [size]."""
    taper_size = round(TAPER_LENGTH * sample_rate)
    ramp = torch.arange(taper_size, dtype=torch.float64) / taper_size
    taper = torch.ones(size, dtype=torch.float64)
    taper[:taper_size] = torch.sin(torch.pi / 2 * ramp) ** 2
    return taper


def sky(n: int) -> dict[str, Tensor]:
    """Draw isotropic sky positions and orientations.

    Returns:
        Angles [n], rad: ``dec``, declination; ``phi``, longitude east of Greenwich;
        ``psi``, polarization angle; ``inclination``; ``phase``, coalescence phase.
    """
    return {
        "dec": Cosine().sample((n,)),
        "psi": torch.rand(n) * torch.pi,
        "phi": (torch.rand(n) * 2 - 1) * torch.pi,
        "inclination": Sine().sample((n,)),
        "phase": torch.rand(n) * 2 * torch.pi,
    }


def antenna_responses(angles: dict[str, Tensor], ifos: tuple[str, ...]) -> Tensor:
    """Antenna responses F+ and Fx of each detector.

    Args:
        angles: ``dec``, ``psi`` and ``phi`` from ``sky``, each [n].
        ifos: Detectors.

    Returns:
        Plus and cross response, [n, 2, ifos].

    Raises:
        ConfigurationError: ml4gw has no such detector.
    """
    tensors, _ = _sites(ifos)
    responses: Tensor = compute_antenna_responses(
        torch.pi / 2 - angles["dec"],
        angles["psi"],
        angles["phi"],
        tensors,
        ["plus", "cross"],
    )
    return responses


def antenna_amplitudes(angles: dict[str, Tensor], ifos: tuple[str, ...]) -> Tensor:
    """Complex factor between a detector's spectrum and the face-on plus polarization's.

    It combines antenna responses, inclination and phase.

    Args:
        angles: Angles from ``sky``, each [n].
        ifos: Detectors.

    Returns:
        Factors, [n, ifos].

    Raises:
        ConfigurationError: ml4gw has no such detector.
    """
    responses = antenna_responses(angles, ifos)
    cosine = torch.cos(angles["inclination"])[:, None]
    factors = torch.complex(
        responses[:, 0] * (1 + cosine**2) / 2, -responses[:, 1] * cosine
    )
    return factors * torch.exp(2j * angles["phase"])[:, None]


def arrival_delays(angles: dict[str, Tensor], ifos: tuple[str, ...]) -> Tensor:
    """Light-travel delay of each detector relative to the geocentre.

    Not rounded to samples, unlike in ml4gw's ``compute_observed_strain``.

    Args:
        angles: ``dec`` and ``phi`` from ``sky``, each [n].
        ifos: Detectors.

    Returns:
        Delays, s, float64, [n, ifos]; negative if the wave reaches the detector first.

    Raises:
        ConfigurationError: ml4gw has no such detector.
    """
    _, vertices = _sites(ifos)
    dec, phi = angles["dec"].double(), angles["phi"].double()
    source = torch.stack(
        [torch.cos(dec) * torch.cos(phi), torch.cos(dec) * torch.sin(phi), dec.sin()],
        -1,
    )
    delays: Tensor = -source @ vertices.double().T / SPEED_OF_LIGHT
    return delays


def light_travel_lengths(ifos: tuple[str, ...]) -> Tensor:
    """Light-travel time between each pair of detectors, s, [ifos, ifos].

    10.0 ms between H1 and L1, 27.3 ms between H1 and V1, 26.4 ms between L1 and V1.

    Raises:
        ConfigurationError: ml4gw has no such detector.
    """
    _, vertices = _sites(ifos)
    lengths: Tensor = torch.cdist(vertices.double(), vertices.double())
    return lengths / SPEED_OF_LIGHT


def _sites(ifos: tuple[str, ...]) -> tuple[Tensor, Tensor]:
    """Response tensors, [ifos, 3, 3], and geocentric positions, m, [ifos, 3].

    ml4gw takes them from LALSuite's ``LALDetectors.h``.

    Raises:
        ConfigurationError: ml4gw has no such detector.
    """
    try:
        tensors, vertices = get_ifo_geometry(*ifos)
    except ValueError:
        raise ConfigurationError(
            f"ifos: expected detectors whose site ml4gw has (H1, L1, V1, K1), found "
            f"{', '.join(ifos)}"
        ) from None
    return tensors, vertices
