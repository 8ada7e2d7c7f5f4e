"""Draw mergers, project them onto the detectors, and place them in a segment."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from ml4gw.gw import compute_network_snr
from numpy.typing import NDArray
from torch import Tensor

from chirpwatch.errors import SignalError
from chirpwatch.signals import ProjectedSignals
from chirpwatch.strain import NANOSECONDS
from chirpwatch.train.data.noise.curves import read_curve
from chirpwatch.train.data.signals.population import (
    AFTER_MERGER_LENGTH,
    InjectionSettings,
    draw_masses,
    draw_redshifts,
    draw_spins,
    redshift_at,
)
from chirpwatch.train.data.signals.waveforms import (
    antenna_amplitudes,
    antenna_responses,
    arrival_delays,
    face_on_waveforms,
    precessing_polarizations,
    sky,
)

SIGNAL_LENGTH = 4.0
"""Default length of a signal, s."""

MERGER_LENGTH = SIGNAL_LENGTH - AFTER_MERGER_LENGTH
"""Time from the start of such a signal to its merger, s."""

WAVEFORM_DISTANCE = 100.0
"""Luminosity distance at which waveforms are generated, Mpc."""

REJECTION_BATCH = 64
"""Mergers drawn at once where faint ones are rejected."""

LOUD_BATCH = 256
"""Mergers drawn at once where distances follow from the SNR."""

BATCH_SAMPLES = 2**21
"""Largest batch in samples, 256 signals of 4 s at 2048 Hz, to limit memory."""

Columns = dict[str, Tensor]
"""Parameters and series of n mergers by name, each [n, …]."""


def project(
    waveforms: Tensor,
    angles: dict[str, Tensor],
    ifos: tuple[str, ...],
    sample_rate: int,
) -> tuple[Tensor, Tensor]:
    """Project face-on mergers onto the detectors, with light-travel delays.

    Args:
        waveforms: Plus polarization, face-on, [n, size].
        angles: Angles from ``sky``.
        ifos: Detectors.
        sample_rate: Hz.

    Returns:
        Strain, [n, ifos, size], in which the merger's sample is the waveform's in the
        first detector that the wave reaches; and the delay of each detector relative
        to the first, s, [n, ifos]. Delays are not rounded to samples, and a delayed
        signal does not wrap around.
    """
    size = waveforms.shape[-1]
    amplitudes = antenna_amplitudes(angles, ifos).to(torch.complex128)
    spectrum = torch.fft.rfft(waveforms.double(), 2 * size)[:, None]
    delays, phase = _arrival(angles, ifos, size, sample_rate)
    strain = torch.fft.irfft(spectrum * phase * amplitudes[..., None], 2 * size)
    return strain[..., :size], delays


def project_polarizations(
    plus: Tensor,
    cross: Tensor,
    angles: dict[str, Tensor],
    ifos: tuple[str, ...],
    sample_rate: int,
) -> tuple[Tensor, Tensor]:
    """Project both polarizations onto the detectors, with light-travel delays.

    Args:
        plus: Plus polarization, [n, size].
        cross: Cross polarization, [n, size].
        angles: ``dec``, ``psi`` and ``phi`` from ``sky``.
        ifos: Detectors.
        sample_rate: Hz.

    Returns:
        Strain and delays as ``project`` returns.
    """
    size = plus.shape[-1]
    waves = torch.stack([plus, cross], 1).double()
    responses = antenna_responses(angles, ifos).to(torch.complex128)
    spectrum = torch.einsum("npf,npi->nif", torch.fft.rfft(waves, 2 * size), responses)
    delays, phase = _arrival(angles, ifos, size, sample_rate)
    return torch.fft.irfft(spectrum * phase, 2 * size)[..., :size], delays


def _arrival(
    angles: dict[str, Tensor], ifos: tuple[str, ...], size: int, sample_rate: int
) -> tuple[Tensor, Tensor]:
    """Delays relative to the first detector, s, and their phase factors.

    The factors apply to spectra of series zero-padded to ``2 * size``, [n, ifos, bins].
    """
    delays = arrival_delays(angles, ifos)
    delays = delays - delays.min(1, keepdim=True).values
    frequencies = torch.fft.rfftfreq(2 * size, 1 / sample_rate, dtype=torch.float64)
    return delays, torch.exp(-2j * torch.pi * frequencies * delays[..., None])


def network_snr(
    strain: Tensor, run: str, ifos: tuple[str, ...], sample_rate: int, highpass: float
) -> Tensor:
    """Optimal network SNR of projected signals with a run's default noise curves.

    Args:
        strain: Signals, [n, ifos, size].
        run: Observing run.
        ifos: Detectors.
        sample_rate: Hz.
        highpass: Low-frequency cutoff of the SNR, Hz.

    Returns:
        Network SNR, [n].

    Raises:
        ConfigurationError: The curves do not reach half the sample rate.
    """
    frequencies = np.fft.rfftfreq(strain.shape[-1], 1 / sample_rate)
    curves = [read_curve(run, ifo, sample_rate=sample_rate) for ifo in ifos]
    grid = np.linspace(0, sample_rate / 2, len(curves[0]))
    psd = np.stack([np.interp(frequencies, grid, curve) ** 2 for curve in curves])
    snrs: Tensor = compute_network_snr(
        strain, torch.from_numpy(psd), sample_rate, highpass
    )
    return snrs


def rejection_batches(
    draw: Callable[[int], Columns],
    n: int,
    min_snr: float,
    batch: int = REJECTION_BATCH,
) -> Iterator[tuple[Columns, Columns]]:
    """Draw mergers batch by batch until ``n`` are loud enough.

    Args:
        draw: Draws a number of mergers: columns, ``snr`` among them.
        n: Number of mergers to accept.
        min_snr: Smallest network SNR of an accepted merger.
        batch: Mergers drawn at once.

    Yields:
        Columns of a batch's accepted and of its rejected mergers. Those drawn after the
        last accepted merger are in neither, so that they do not bias the count.
    """
    missing = n
    while missing:
        columns = draw(batch)
        accepted = columns["snr"] >= min_snr
        loud = torch.nonzero(accepted).flatten()[:missing]
        missing -= len(loud)
        counted = batch if missing else int(loud[-1]) + 1
        faint = torch.nonzero(~accepted[:counted]).flatten()
        yield (
            {name: column[loud] for name, column in columns.items()},
            {name: column[faint] for name, column in columns.items()},
        )


def _joined(batches: list[Columns]) -> Columns:
    return {
        name: torch.cat([columns[name] for columns in batches]) for name in batches[0]
    }


def draw_mergers(n: int, settings: InjectionSettings) -> Columns:
    """Draw mergers, and project them onto the detectors.

    Args:
        n: Number of mergers.
        settings: Population.

    Returns:
        Columns [n]: ``mass_1`` and ``mass_2`` (detector frame, solar masses; with
        ``settings.source_frame`` also ``source_mass_1`` and ``source_mass_2``), spins,
        angles, ``distance`` (luminosity distance, Mpc), ``redshift``, ``snr``; and
        ``strain`` and ``delays`` as ``project`` returns.

    Raises:
        SignalError: An SNR puts a merger beyond redshift 2.
    """
    columns, plus, cross = _arriving(n, settings)
    return _detected(columns, plus, cross, settings)


def _arriving(
    n: int, settings: InjectionSettings
) -> tuple[Columns, Tensor, Tensor | None]:
    """Draw mergers, and generate their waveforms at 100 Mpc.

    Returns:
        Parameters; and plus and cross polarizations if the approximant precesses, else
        face-on waveforms and None.
    """
    mass_1, mass_2 = draw_masses(n, settings)
    columns: Columns = {}
    if settings.source_frame:
        # The waveform depends on the redshift, through the detector-frame masses.
        columns["redshift"], columns["distance"] = draw_redshifts(n, settings)
        columns |= {"source_mass_1": mass_1, "source_mass_2": mass_2}
        mass_1, mass_2 = (mass * (1 + columns["redshift"]) for mass in (mass_1, mass_2))
    columns |= {"mass_1": mass_1, "mass_2": mass_2}
    rate = settings.sample_rate
    sizes = round(settings.signal_length * rate), round(settings.merger_length * rate)
    spins = draw_spins(n, settings)
    zeros = torch.zeros(n)
    if settings.approximant == "IMRPhenomPv2":
        columns |= spins | sky(n)
        parameters = {
            f"spin_{i}{axis}": zeros for i in (1, 2) for axis in "xyz"
        } | columns
        return columns, *precessing_polarizations(parameters, *sizes, rate)
    spin_1, spin_2 = (spins.get(f"spin_{i}z", zeros) for i in (1, 2))
    waveforms = face_on_waveforms(
        mass_1.float(), mass_2.float(), spin_1, spin_2, *sizes, rate
    )
    return columns | spins | sky(n), waveforms, None


def _detected(
    columns: Columns, plus: Tensor, cross: Tensor | None, settings: InjectionSettings
) -> Columns:
    """Project mergers at 100 Mpc, and scale them to their distances."""
    rate, n = settings.sample_rate, len(plus)
    if cross is None:
        strain, delays = project(plus, columns, settings.ifos, rate)
    else:
        strain, delays = project_polarizations(
            plus, cross, columns, settings.ifos, rate
        )
    snr = network_snr(strain, settings.run, settings.ifos, rate, settings.highpass)
    snr = snr.double()
    if settings.snr_range is not None:
        low, high = settings.snr_range
        target_snr = low + (high - low) * torch.rand(n, dtype=torch.float64)
        distance = WAVEFORM_DISTANCE * snr / target_snr
        redshift = torch.from_numpy(redshift_at(distance.numpy()))
    elif settings.source_frame:
        redshift, distance = columns["redshift"], columns["distance"]
    else:
        redshift, distance = draw_redshifts(n, settings)
    scale = WAVEFORM_DISTANCE / distance
    return columns | {
        "distance": distance,
        "redshift": redshift,
        "snr": snr * scale,
        "strain": strain * scale[:, None, None],
        "delays": delays,
    }


def draw_polarizations(n: int, settings: InjectionSettings) -> Columns:
    """Draw mergers as plus and cross polarizations at the Earth.

    Args:
        n: Number of mergers.
        settings: Population. With an SNR range all mergers are at 100 Mpc and the range
            is ignored; without one, distances are drawn and ``snr`` is a column.

    Returns:
        Parameters, columns [n]; and ``plus`` and ``cross``, [n, size], at the drawn
        inclination and phase.
    """
    columns, plus, cross = _arriving(n, settings)
    scale = torch.ones(n, dtype=torch.float64)
    distance = torch.full((n,), WAVEFORM_DISTANCE)
    detected = columns | {"distance": distance}
    if settings.snr_range is None:
        detected = _detected(columns, plus, cross, settings)
        del detected["strain"], detected["delays"]
        scale = WAVEFORM_DISTANCE / detected["distance"]
    if cross is None:
        plus, cross = _inclined(plus, columns)
    return detected | {"plus": plus * scale[:, None], "cross": cross * scale[:, None]}


def _inclined(waveforms: Tensor, angles: Columns) -> tuple[Tensor, Tensor]:
    """Plus and cross polarizations at the drawn inclination and phase.

    Args:
        waveforms: Face-on waveforms without precession, [n, size].
        angles: ``inclination`` and ``phase`` from ``sky``.
    """
    spectrum = torch.fft.rfft(waveforms) * torch.exp(2j * angles["phase"])[:, None]
    cosine = torch.cos(angles["inclination"])[:, None]
    size = waveforms.shape[-1]
    plus = torch.fft.irfft(spectrum * (1 + cosine**2) / 2, size)
    return plus, torch.fft.irfft(-1j * spectrum * cosine, size)


def merger_batches(
    n: int,
    settings: InjectionSettings,
    draw: Callable[[int, InjectionSettings], Columns],
) -> Iterator[tuple[Columns, Columns]]:
    """Draw mergers in batches, to limit memory.

    Args:
        n: Number of mergers.
        settings: Population.
        draw: ``draw_mergers`` or ``draw_polarizations``.

    Yields:
        Columns of a batch's accepted mergers, and of those rejected below
        ``settings.min_snr``. With an SNR range, none are rejected.
    """
    size = round(settings.signal_length * settings.sample_rate)
    max_batch = max(1, BATCH_SAMPLES // size)
    if settings.snr_range is None:
        yield from rejection_batches(
            lambda count: draw(count, settings),
            n,
            settings.min_snr,
            min(REJECTION_BATCH, max_batch),
        )
        return
    batch = min(LOUD_BATCH, max_batch)
    for start in range(0, n, batch):
        columns = draw(min(batch, n - start), settings)
        yield columns, {name: column[:0] for name, column in columns.items()}


def count_mergers(duration: int, settings: InjectionSettings) -> int:
    """Number of mergers that fit into a segment.

    Args:
        duration: Length of the segment, s.
        settings: Times of the mergers.

    Raises:
        SignalError: No merger fits into the segment.
    """
    if not has_room(duration, settings):
        raise SignalError(
            f"expected the first merger, with jitter, at least "
            f"{settings.merger_length:g} s after the segment's start and "
            f"{AFTER_MERGER_LENGTH:g} s before its end, found "
            f"{settings.first_length:g} s and {settings.jitter_length:g} s of jitter "
            f"in {duration} s; choose a longer segment or other times"
        )
    last = duration - AFTER_MERGER_LENGTH - settings.jitter_length
    return int((last - settings.first_length) // settings.spacing_length) + 1


def has_room(duration: int, settings: InjectionSettings) -> bool:
    """Whether at least one merger fits into a segment of ``duration`` seconds."""
    first, jitter = settings.first_length, settings.jitter_length
    return (
        first - jitter >= settings.merger_length
        and first + jitter + AFTER_MERGER_LENGTH <= duration
    )


def draw_times(n: int, t0: int, settings: InjectionSettings) -> NDArray[Any]:
    """Draw the times of mergers: a regular spacing with jitter.

    Args:
        n: Number of mergers, from ``count_mergers``.
        t0: GPS start of the segment, s.
        settings: Spacing and jitter.

    Returns:
        GPS nanoseconds, int64, [n], increasing, each on a whole sample.
    """
    rate = settings.sample_rate
    jitter = settings.jitter_length * (2 * torch.rand(n, dtype=torch.float64) - 1)
    # float64: float32 would be 2 s off after a year.
    places = settings.spacing_length * torch.arange(n, dtype=torch.float64)
    times = settings.first_length + places + jitter
    # Whole samples, so that an injection needs no interpolation. Sorted, since jitter
    # may swap neighbours; signals are assigned to times afterwards.
    samples: NDArray[Any] = torch.round(times * rate).long().sort().values.numpy()
    # Split off the seconds: nanoseconds times the rate would overflow int64.
    seconds, rest = np.divmod(samples, rate)
    nanoseconds: NDArray[Any] = (
        t0 + seconds
    ) * NANOSECONDS + rest * NANOSECONDS // rate
    return nanoseconds


def signal_parameters(
    columns: Columns, ifos: tuple[str, ...]
) -> tuple[NDArray[Any], dict[str, NDArray[Any]]]:
    """Separate mergers' strain from their parameters.

    Args:
        columns: Columns from ``draw_mergers``.
        ifos: Detectors.

    Returns:
        Strain, float32, [n, ifos, size]; and parameters, float64, each [n], with the
        delays as ``delay_{ifo}``, s.
    """
    parameters = {
        name: column.double().numpy()
        for name, column in columns.items()
        if name not in {"strain", "delays"}
    }
    for i, ifo in enumerate(ifos):
        parameters[f"delay_{ifo}"] = columns["delays"][:, i].numpy()
    return columns["strain"].float().numpy(), parameters


def population_attributes(
    settings: InjectionSettings, command: str
) -> dict[str, object]:
    """Attributes of a set of mergers: how it was simulated.

    Args:
        settings: Population.
        command: Command line.
    """
    return {
        "simulated": True,
        "command": command,
        "waveform": f"{settings.approximant} (ml4gw)",
        "noise_curves": settings.run,
        "snr_highpass": settings.highpass,
        "cosmology": "Planck18",
        "settings": json.dumps(asdict(settings)),
    }


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed PyTorch's generator in the block, and restore it afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def simulate_test_signals(
    t0: int, duration: int, settings: InjectionSettings, seed: int, command: str
) -> ProjectedSignals:
    """Draw a segment's mergers, at a regular spacing with jitter, in memory.

    ``files.write_simulated_signals`` writes the same to a file, batch by batch.

    Args:
        t0: GPS start of the segment, s.
        duration: Length of the segment, s.
        settings: Population and times.
        seed: Random seed.
        command: Command line, for the attributes.

    Returns:
        The signals; each is entirely within the segment.

    Raises:
        SignalError: No merger fits into the segment.
    """
    n, batches, num_rejected = count_mergers(duration, settings), [], 0
    with seeded(seed):
        for columns, rejected in merger_batches(n, settings, draw_mergers):
            batches.append(columns)
            num_rejected += len(rejected["snr"])
        times = draw_times(n, t0, settings)
    strain, parameters = signal_parameters(_joined(batches), settings.ifos)
    return ProjectedSignals(
        ifos=settings.ifos,
        sample_rate=settings.sample_rate,
        strain=strain,
        merger_size=round(settings.merger_length * settings.sample_rate),
        gps_time_ns=times,
        parameters=parameters,
        num_rejected=num_rejected,
        attributes=population_attributes(settings, command) | {"seed": seed},
    )
