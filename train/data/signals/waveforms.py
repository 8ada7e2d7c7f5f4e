"""Mergers: waveforms from ml4gw, and how the detectors see them.

A merger's time is the peak of the (2, 2) mode's amplitude; of a precessing one the peak
of the modulus of both polarizations together, the same where nothing precesses.
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
MIN_FREQUENCY = 20.0
TAPER_LENGTH = 0.125
WAVEFORM_BATCH = 64
_Values = TypeVar("_Values", Tensor, NDArray[Any])


def chirp_mass(mass_1: _Values, mass_2: _Values) -> _Values:
    """Chirp masses of component masses, [n], in the same unit."""
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

    The cross polarization is ``-1j`` times it in frequency; other inclinations scale
    the two (``antenna_amplitudes``).

    Args:
        mass_1: Heavier mass, detector frame, solar masses, [n].
        mass_2: Lighter mass, detector frame, solar masses, [n].
        spin_1: Dimensionless spin of the heavier along the orbit's axis, [n].
        spin_2: Same of the lighter, [n].
        size: Samples wanted.
        merger_size: Sample of the merger.
        sample_rate: Hz.

    Returns:
        Strain, float64, [n, size]. Inspiral that began before the first sample is cut
        off with a taper of 1/8 s; nothing wraps around.
    """
    chirp_masses = chirp_mass(mass_1, mass_2)
    # ml4gw's mass ratio is lighter over heavier.
    mass_ratio = mass_2 / mass_1
    waveforms = torch.empty(len(mass_1), size, dtype=torch.float64)
    generator = TimeDomainCBCWaveformGenerator(
        IMRPhenomD(), sample_rate, size / sample_rate, MIN_FREQUENCY, MIN_FREQUENCY, 0.5
    )
    taper = _taper(size, sample_rate)
    # Equal lengths together: the longest of a batch sets the length of all.
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
    """Amplitude spectra of the same mergers, the whole inspiral with them.

    Args:
        mass_1: Heavier mass, detector frame, solar masses, [n].
        mass_2: Lighter mass, detector frame, solar masses, [n].
        spin_1: Dimensionless spin of the heavier along the orbit's axis, [n].
        spin_2: Same of the lighter, [n].
        frequencies: Hz, above 0, [bins].

    Returns:
        Modulus of the plus polarization, strain per Hz, float64, [n, bins].
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
    """Generate both polarizations of mergers whose spins point anywhere.

    Args:
        parameters: Columns [n]: ``mass_1`` (heavier) and ``mass_2``, detector frame,
            solar masses; dimensionless spins ``spin_1x`` … ``spin_2z`` at 20 Hz, along
            axes of which z is that of the orbit; ``inclination`` and ``phase``, rad.
        size: Samples wanted.
        merger_size: Sample of the merger.
        sample_rate: Hz.

    Returns:
        Plus and cross polarization of IMRPhenomPv2 at 100 Mpc, float64, [n, size],
        tapered and cut as those of ``face_on_waveforms``.
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
    # Equal lengths together: the longest of a batch sets the length of all.
    for batch in torch.split(torch.argsort(chirp_masses), WAVEFORM_BATCH):
        one = {name: column[batch] for name, column in columns.items()}
        cross, plus = generator.generate_conditioned_fd_waveform(
            mass_1=one["mass_1"],
            mass_2=one["mass_2"],
            chirp_mass=chirp_masses[batch],
            # ml4gw's mass ratio is lighter over heavier.
            mass_ratio=one["mass_2"] / one["mass_1"],
            **{f"s{i}{axis}": one[f"spin_{i}{axis}"] for i in "12" for axis in "xyz"},
            distance=torch.full_like(one["mass_1"], 100.0),
            phic=one["phase"],
            inclination=one["inclination"],
        )
        placed[:, batch] = place_polarizations(
            plus, cross, size, merger_size, sample_rate
        )
    return placed[0], placed[1]


def place_polarizations(
    plus: Tensor, cross: Tensor, size: int, merger_size: int, sample_rate: int
) -> Tensor:
    """Turn both polarizations' spectra into series whose mergers lie at one sample.

    Args:
        plus: Spectrum of a series that ends after the merger, strain per Hz, [n, bins].
        cross: Likewise.
        size: Samples wanted.
        merger_size: Sample of the merger.
        sample_rate: Hz.

    Returns:
        Strain of plus and cross polarization, float64, [2, n, size], tapered and cut
        as that of ``face_on_waveforms``.
    """
    pair = [_analytic(spectrum, sample_rate) for spectrum in (plus, cross)]
    peaks = torch.stack([wave.abs() ** 2 for wave in pair]).sum(0).argmax(-1)
    placed = [_placed(wave.real, peaks, size, merger_size) for wave in pair]
    return torch.stack(placed) * _taper(size, sample_rate)


def _analytic(spectrum: Tensor, sample_rate: int) -> Tensor:
    """Series of a spectrum without its negative frequencies: its modulus is smooth."""
    spectrum = spectrum.to(torch.complex128)
    padded = torch.zeros(
        len(spectrum), 2 * (spectrum.shape[-1] - 1), dtype=torch.complex128
    )
    padded[:, : spectrum.shape[-1]] = 2 * spectrum
    result: Tensor = torch.fft.ifft(padded) * sample_rate
    return result


def _placed(waves: Tensor, peaks: Tensor, size: int, merger_size: int) -> Tensor:
    """Cut waves so that each one's peak lies at ``merger_size``, with zeros outside."""
    placed = torch.zeros(len(waves), size, dtype=torch.float64)
    for row, (wave, peak) in enumerate(zip(waves, peaks.tolist(), strict=True)):
        before, after = min(peak, merger_size), size - merger_size
        piece = wave[peak - before : peak + after]
        start = merger_size - before
        placed[row, start : start + len(piece)] = piece
    return placed


def _taper(size: int, sample_rate: int) -> Tensor:
    taper_size = round(TAPER_LENGTH * sample_rate)
    ramp = torch.arange(taper_size, dtype=torch.float64) / taper_size
    taper = torch.ones(size, dtype=torch.float64)
    taper[:taper_size] = torch.sin(torch.pi / 2 * ramp) ** 2
    return taper


def sky(n: int) -> dict[str, Tensor]:
    """Draw isotropic positions and orientations.

    Returns:
        Tensors [n], rad: ``dec``; ``psi``, polarization; ``phi``, longitude east of
        Greenwich; ``inclination``; ``phase``, at coalescence.
    """
    return {
        "dec": Cosine().sample((n,)),
        "psi": torch.rand(n) * torch.pi,
        "phi": (torch.rand(n) * 2 - 1) * torch.pi,
        "inclination": Sine().sample((n,)),
        "phase": torch.rand(n) * 2 * torch.pi,
    }


def antenna_responses(angles: dict[str, Tensor], ifos: tuple[str, ...]) -> Tensor:
    """How each detector responds to the two polarizations.

    Args:
        angles: ``dec``, ``psi`` and ``phi`` as from ``sky``, each [n].
        ifos: Detectors.

    Returns:
        Plus and cross, [n, 2, ifos].

    Raises:
        ConfigurationError: The site of a detector is not known.
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
    """What each detector multiplies the face-on plus polarization's spectrum with.

    Args:
        angles: As from ``sky``, each [n].
        ifos: Detectors.

    Returns:
        Complex factors, [n, ifos].
    """
    responses = antenna_responses(angles, ifos)
    cosine = torch.cos(angles["inclination"])[:, None]
    factors = torch.complex(
        responses[:, 0] * (1 + cosine**2) / 2, -responses[:, 1] * cosine
    )
    return factors * torch.exp(2j * angles["phase"])[:, None]


def arrival_delays(angles: dict[str, Tensor], ifos: tuple[str, ...]) -> Tensor:
    """Time at which a wave reaches each detector after it reaches the geocentre.

    Not rounded to samples, unlike ml4gw's ``compute_observed_strain``.

    Args:
        angles: ``dec`` and ``phi`` as from ``sky``, each [n].
        ifos: Detectors.

    Returns:
        Delays, s, [n, ifos]; negative where the detector sees it first.

    Raises:
        ConfigurationError: The site of a detector is not known.
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
    """Time that light takes between each two detectors, s, [ifos, ifos].

    Between H1 and L1 10.0 ms, between V1 and either of them 27.3 and 26.4 ms.
    """
    _, vertices = _sites(ifos)
    lengths: Tensor = torch.cdist(vertices.double(), vertices.double())
    return lengths / SPEED_OF_LIGHT


def _sites(ifos: tuple[str, ...]) -> tuple[Tensor, Tensor]:
    """Response tensors, [ifos, 3, 3], and places on the Earth, m, [ifos, 3].

    ml4gw has them from LALSuite's ``LALDetectors.h``.

    Raises:
        ConfigurationError: ml4gw does not know a detector.
    """
    try:
        tensors, vertices = get_ifo_geometry(*ifos)
    except ValueError:
        raise ConfigurationError(
            f"ifos: expected detectors whose site is known, H1, L1, V1 or K1; found "
            f"{', '.join(ifos)}"
        ) from None
    return tensors, vertices
