"""Test signals: mergers drawn, projected onto the detectors, placed in a segment."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from astropy.cosmology import Planck18
from ml4gw.distributions import UniformComovingVolume
from ml4gw.gw import compute_network_snr
from scipy.interpolate import CubicSpline
from torch import Tensor

from chirpwatch.errors import SignalError
from chirpwatch.signals import NANOSECONDS, Polarizations, ProjectedSignals
from train.data.curves import read_curve
from train.data.signals import (
    antenna_amplitudes,
    arrival_delays,
    face_on_waveforms,
    sky,
)

SIGNAL_LENGTH = 4.0
MERGER_LENGTH = 3.5
WAVEFORM_DISTANCE = 100.0
MAX_REDSHIFT = 2.0
REJECTION_BATCH = 64


@dataclass(frozen=True)
class InjectionSettings:
    """Which mergers are injected, and when.

    Attributes:
        run: Observing run whose noise curves define the SNR.
        min_mass, max_mass: Component masses, detector frame, uniform, solar masses.
        reference_share: Share of the mergers that are of 35 and 35 solar masses.
        snr_range: Network SNR, drawn uniformly, to which distances are adapted; None
            draws distances uniform in comoving volume instead.
        min_snr: Network SNR below which such draws are rejected.
        max_redshift: Limit of such draws.
        first_length: First merger after the start of the segment, s.
        spacing_length: Time between mergers, s.
        jitter_length: Each merger is moved by up to this, to both sides, s.
        highpass: Frequency from which the SNR is counted, Hz.
        sample_rate: Hz.
        ifos: Detectors.
    """

    run: str = "O3"
    min_mass: float = 15.0
    max_mass: float = 50.0
    reference_share: float = 0.3
    snr_range: tuple[float, float] | None = (5.0, 20.0)
    min_snr: float = 4.0
    max_redshift: float = 1.0
    first_length: float = 44.0
    spacing_length: float = 24.0
    jitter_length: float = 4.0
    highpass: float = 32.0
    sample_rate: int = 2048
    ifos: tuple[str, ...] = ("H1", "L1")


def project(
    waveforms: Tensor,
    angles: dict[str, Tensor],
    ifos: tuple[str, ...],
    sample_rate: int,
) -> tuple[Tensor, Tensor]:
    """Project face-on mergers onto the detectors, with the light-travel delays.

    Args:
        waveforms: Plus polarization, face-on, [n, size].
        angles: As from :func:`train.data.signals.sky`.
        ifos: Detectors.
        sample_rate: Hz.

    Returns:
        Strain, [n, ifos, size], in which the detector that is reached first sees the
        merger where the waveform has it, and the delay of each detector after that
        one, s, [n, ifos]. Delays are not rounded to samples; padding keeps what a
        delay moves beyond an end from coming back at the other.
    """
    size = waveforms.shape[-1]
    delays = arrival_delays(angles, ifos)
    delays = delays - delays.min(1, keepdim=True).values
    amplitudes = antenna_amplitudes(angles, ifos).to(torch.complex128)
    spectrum = torch.fft.rfft(waveforms.double(), 2 * size)[:, None]
    frequencies = torch.fft.rfftfreq(2 * size, 1 / sample_rate, dtype=torch.float64)
    phase = torch.exp(-2j * torch.pi * frequencies * delays[..., None])
    strain = torch.fft.irfft(spectrum * phase * amplitudes[..., None], 2 * size)
    return strain[..., :size], delays


def network_snr(
    strain: Tensor, run: str, ifos: tuple[str, ...], sample_rate: int, highpass: float
) -> Tensor:
    """Optimal network SNR of projected signals in published noise curves.

    Args:
        strain: [n, ifos, size].
        run: Observing run.
        ifos: Detectors.
        sample_rate: Hz.
        highpass: Frequency from which the SNR is counted, Hz.

    Returns:
        SNR, [n].
    """
    frequencies = np.fft.rfftfreq(strain.shape[-1], 1 / sample_rate)
    curves = [read_curve(run, ifo) for ifo in ifos]
    grid = np.linspace(0, sample_rate / 2, len(curves[0]))
    psd = np.stack([np.interp(frequencies, grid, curve) ** 2 for curve in curves])
    snrs: Tensor = compute_network_snr(
        strain, torch.from_numpy(psd), sample_rate, highpass
    )
    return snrs


def rejection_sample(
    draw: Callable[[int], dict[str, Tensor]],
    wanted: int,
    min_snr: float,
    batch: int = REJECTION_BATCH,
) -> tuple[dict[str, Tensor], int]:
    """Draw until enough are loud enough, and count the rest exactly.

    Args:
        draw: Makes a number of draws: columns, ``snr`` among them.
        wanted: Draws to accept.
        min_snr: Network SNR from which a draw is accepted.
        batch: Draws made at once.

    Returns:
        Columns of the accepted draws, [wanted, …], and how many draws before the last
        accepted one were rejected. What a batch holds beyond that one was never drawn.
    """
    accepted: list[dict[str, Tensor]] = []
    missing, num_rejected = wanted, 0
    while missing:
        columns = draw(batch)
        loud = torch.nonzero(columns["snr"] >= min_snr).flatten()[:missing]
        missing -= len(loud)
        drawn = batch if missing else int(loud[-1]) + 1
        num_rejected += drawn - len(loud)
        accepted.append({name: column[loud] for name, column in columns.items()})
    names = accepted[0] if accepted else draw(0)
    return {
        name: torch.cat([columns[name] for columns in accepted]) for name in names
    }, num_rejected


def draw_mergers(n: int, settings: InjectionSettings) -> dict[str, Tensor]:
    """Draw mergers and project them.

    Args:
        n: Mergers wanted.
        settings: Their population.

    Returns:
        Columns [n]: masses (detector frame), angles, ``distance`` (luminosity, Mpc),
        ``redshift``, ``snr``; and ``strain`` and ``delays`` as from :func:`project`.
    """
    rate = settings.sample_rate
    mass_1, mass_2 = _draw_masses(n, settings)
    waveforms = _face_on(mass_1, mass_2, settings)
    angles = sky(n)
    strain, delays = project(waveforms, angles, settings.ifos, rate)
    snr = network_snr(strain, settings.run, settings.ifos, rate, settings.highpass)
    snr = snr.double()
    if settings.snr_range is not None:
        low, high = settings.snr_range
        wanted = low + (high - low) * torch.rand(n, dtype=torch.float64)
        distance = WAVEFORM_DISTANCE * snr / wanted
        redshift = torch.from_numpy(_redshift(distance.numpy()))
    else:
        volume = UniformComovingVolume(0.0, settings.max_redshift, "redshift")
        redshift = volume.sample((n,)).double()
        distance = torch.from_numpy(
            Planck18.luminosity_distance(redshift.numpy()).to_value("Mpc")
        )
    scale = WAVEFORM_DISTANCE / distance
    return {
        "mass_1": mass_1,
        "mass_2": mass_2,
        **angles,
        "distance": distance,
        "redshift": redshift,
        "snr": snr * scale,
        "strain": strain * scale[:, None, None],
        "delays": delays,
    }


def simulate_polarizations(
    n: int, settings: InjectionSettings, seed: int, command: str
) -> Polarizations:
    """Draw mergers to train on: what arrives at the Earth, before any detector.

    Args:
        n: Mergers wanted, at 100 Mpc each.
        settings: Their population; SNR, distance and times are not used.
        seed: Seed of everything that is drawn.
        command: How to make this again, for the attributes.

    Returns:
        Plus and cross polarization with the inclination and phase drawn, and the
        parameters.
    """
    torch.manual_seed(seed)
    mass_1, mass_2 = _draw_masses(n, settings)
    waveforms = _face_on(mass_1, mass_2, settings)
    angles = sky(n)
    spectrum = torch.fft.rfft(waveforms) * torch.exp(2j * angles["phase"])[:, None]
    cosine = torch.cos(angles["inclination"])[:, None]
    size = waveforms.shape[-1]
    columns = {"mass_1": mass_1, "mass_2": mass_2, **angles}
    columns["distance"] = torch.full((n,), WAVEFORM_DISTANCE)
    return Polarizations(
        sample_rate=settings.sample_rate,
        plus=torch.fft.irfft(spectrum * (1 + cosine**2) / 2, size).numpy(),
        cross=torch.fft.irfft(-1j * spectrum * cosine, size).numpy(),
        merger_size=round(MERGER_LENGTH * settings.sample_rate),
        parameters={name: column.double().numpy() for name, column in columns.items()},
        attributes={"simulated": True, "command": command, "waveform": "IMRPhenomD"},
    )


def _draw_masses(n: int, settings: InjectionSettings) -> tuple[Tensor, Tensor]:
    span = settings.max_mass - settings.min_mass
    masses = settings.min_mass + span * torch.rand(n, 2)
    masses[torch.rand(n) < settings.reference_share] = 35.0
    heavier, lighter = masses.sort(1, descending=True).values.T
    return heavier, lighter


def _face_on(mass_1: Tensor, mass_2: Tensor, settings: InjectionSettings) -> Tensor:
    zeros, rate = torch.zeros(len(mass_1)), settings.sample_rate
    return face_on_waveforms(
        mass_1,
        mass_2,
        zeros,
        zeros,
        round(SIGNAL_LENGTH * rate),
        round(MERGER_LENGTH * rate),
        rate,
    )


def _redshift(distance: np.ndarray) -> np.ndarray:
    """Invert the luminosity distance (Mpc) of Planck18."""
    grid = np.linspace(0, MAX_REDSHIFT, 2001)
    distances = Planck18.luminosity_distance(grid).to_value("Mpc")
    if distance.max(initial=0) > distances[-1]:
        raise SignalError(
            f"an SNR this low puts a merger at {distance.max():.0f} Mpc, beyond "
            f"redshift {MAX_REDSHIFT:g}; ask for a higher SNR or lower masses"
        )
    redshift: np.ndarray = CubicSpline(distances, grid)(distance)
    return redshift


def simulate_test_signals(
    t0: int, duration: int, settings: InjectionSettings, seed: int, command: str
) -> ProjectedSignals:
    """Fill a segment with mergers at a regular spacing with jitter.

    Args:
        t0: GPS start of the segment, s.
        duration: Length of the segment, s.
        settings: Population and times.
        seed: Seed of everything that is drawn.
        command: How to make this again, for the attributes.

    Returns:
        The signals; each lies within the segment as a whole.

    Raises:
        SignalError: No merger fits into the segment.
    """
    torch.manual_seed(seed)
    rate = settings.sample_rate
    last = duration - (SIGNAL_LENGTH - MERGER_LENGTH) - settings.jitter_length
    span = last - settings.first_length
    n = int(span // settings.spacing_length) + 1 if span >= 0 else 0
    if not n or settings.first_length - settings.jitter_length < MERGER_LENGTH:
        raise SignalError(
            f"expected room for a merger from {MERGER_LENGTH:g} s after the start to "
            f"{SIGNAL_LENGTH - MERGER_LENGTH:g} s before the end of the segment, found "
            f"the first at {settings.first_length:g} s in {duration} s"
        )
    if settings.snr_range is None:
        columns, num_rejected = rejection_sample(
            lambda count: draw_mergers(count, settings), n, settings.min_snr
        )
    else:
        columns, num_rejected = draw_mergers(n, settings), 0
    jitter = settings.jitter_length * (2 * torch.rand(n, dtype=torch.float64) - 1)
    times = settings.first_length + settings.spacing_length * torch.arange(n) + jitter
    # Whole samples, so that an injection needs no interpolation.
    # In order of time: jitter may swap neighbours, which are exchangeable.
    samples = torch.round(times * rate).long().sort().values.numpy()
    strain, delays = columns.pop("strain"), columns.pop("delays")
    parameters = {name: column.double().numpy() for name, column in columns.items()}
    for i, ifo in enumerate(settings.ifos):
        parameters[f"delay_{ifo}"] = delays[:, i].numpy()
    return ProjectedSignals(
        ifos=settings.ifos,
        sample_rate=rate,
        strain=strain.float().numpy(),
        merger_size=round(MERGER_LENGTH * rate),
        gps_time_ns=t0 * NANOSECONDS + samples * NANOSECONDS // rate,
        parameters=parameters,
        num_rejected=num_rejected,
        attributes={
            "simulated": True,
            "command": command,
            "seed": seed,
            "waveform": "IMRPhenomD (ml4gw)",
            "noise_curves": settings.run,
            "snr_highpass": settings.highpass,
            "cosmology": "Planck18",
        },
    )
