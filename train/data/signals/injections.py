"""Test signals: mergers drawn, projected onto the detectors, placed in a segment."""

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
MERGER_LENGTH = SIGNAL_LENGTH - AFTER_MERGER_LENGTH
WAVEFORM_DISTANCE = 100.0
REJECTION_BATCH = 64
LOUD_BATCH = 256
# 256 signals of 4 s at 2048 Hz; fewer at once where they are longer.
BATCH_SAMPLES = 2**21

Columns = dict[str, Tensor]
"""Columns of mergers, each [n, …], by name."""


def project(
    waveforms: Tensor,
    angles: dict[str, Tensor],
    ifos: tuple[str, ...],
    sample_rate: int,
) -> tuple[Tensor, Tensor]:
    """Project face-on mergers onto the detectors, with the light-travel delays.

    Args:
        waveforms: Plus polarization, face-on, [n, size].
        angles: As from ``sky``.
        ifos: Detectors.
        sample_rate: Hz.

    Returns:
        Strain, [n, ifos, size], in which the detector that is reached first sees the
        merger where the waveform has it, and the delay of each detector after that
        one, s, [n, ifos]. Delays are not rounded to samples; padding keeps what a
        delay moves beyond an end from coming back at the other.
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
    """Project both polarizations onto the detectors, with the light-travel delays.

    Args:
        plus: Strain, [n, size].
        cross: Strain, [n, size].
        angles: ``dec``, ``psi`` and ``phi`` as from ``sky``.
        ifos: Detectors.
        sample_rate: Hz.

    Returns:
        Strain and delays as from ``project``.
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
    """Delays after the first detector, s, and what they do to padded spectra."""
    delays = arrival_delays(angles, ifos)
    delays = delays - delays.min(1, keepdim=True).values
    frequencies = torch.fft.rfftfreq(2 * size, 1 / sample_rate, dtype=torch.float64)
    return delays, torch.exp(-2j * torch.pi * frequencies * delays[..., None])


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
    wanted: int,
    min_snr: float,
    batch: int = REJECTION_BATCH,
) -> Iterator[tuple[Columns, Columns]]:
    """Draw until enough are loud enough, batch by batch.

    Args:
        draw: Makes a number of draws: columns, ``snr`` among them.
        wanted: Draws to accept.
        min_snr: Network SNR from which a draw is accepted.
        batch: Draws made at once.

    Yields:
        Columns of the accepted draws and of the rejected ones. What the last batch
        holds beyond the last accepted draw was never drawn.
    """
    missing = wanted
    while missing:
        columns = draw(batch)
        accepted = columns["snr"] >= min_snr
        loud = torch.nonzero(accepted).flatten()[:missing]
        missing -= len(loud)
        drawn = batch if missing else int(loud[-1]) + 1
        faint = torch.nonzero(~accepted[:drawn]).flatten()
        yield (
            {name: column[loud] for name, column in columns.items()},
            {name: column[faint] for name, column in columns.items()},
        )


def _joined(batches: list[Columns]) -> Columns:
    return {
        name: torch.cat([columns[name] for columns in batches]) for name in batches[0]
    }


def draw_mergers(n: int, settings: InjectionSettings) -> Columns:
    """Draw mergers and project them.

    Args:
        n: Mergers wanted.
        settings: Their population.

    Returns:
        Columns [n]: masses (detector frame; those in the source's frame as
        ``source_mass_1`` and ``…_2`` where asked for), spins, angles, ``distance``
        (luminosity, Mpc), ``redshift``, ``snr``; and ``strain`` and ``delays`` as from
        ``project``.
    """
    columns, plus, cross = _arriving(n, settings)
    return _detected(columns, plus, cross, settings)


def _arriving(
    n: int, settings: InjectionSettings
) -> tuple[Columns, Tensor, Tensor | None]:
    """Draw mergers at 100 Mpc.

    Returns:
        Parameters, and either plus and cross polarizations or, where no spin is across
        the orbit's axis, the face-on waveforms and None.
    """
    mass_1, mass_2 = draw_masses(n, settings)
    columns: Columns = {}
    if settings.source_frame:
        # The redshift shapes the waveform.
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
        needed = {f"spin_{i}{axis}": zeros for i in (1, 2) for axis in "xyz"} | columns
        return columns, *precessing_polarizations(needed, *sizes, rate)
    spin_1, spin_2 = (spins.get(f"spin_{i}z", zeros) for i in (1, 2))
    waveforms = face_on_waveforms(
        mass_1.float(), mass_2.float(), spin_1, spin_2, *sizes, rate
    )
    return columns | spins | sky(n), waveforms, None


def _detected(
    columns: Columns, plus: Tensor, cross: Tensor | None, settings: InjectionSettings
) -> Columns:
    """Project mergers at 100 Mpc, and move them to their distances."""
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
        wanted = low + (high - low) * torch.rand(n, dtype=torch.float64)
        distance = WAVEFORM_DISTANCE * snr / wanted
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
    """Draw mergers as they arrive at the Earth.

    Args:
        n: Mergers wanted.
        settings: Their population. With an SNR range, which is not used, all are at 100
            Mpc; without one they are where they were drawn, and have their ``snr``.

    Returns:
        Parameters, columns [n], and ``plus`` and ``cross`` [n, size] with the
        inclination and phase drawn.
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
    """Plus and cross of mergers without precession, from their face-on waveforms."""
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
    """Draw many mergers in batches, so that memory does not grow with their number.

    Args:
        n: Mergers wanted.
        settings: Their population.
        draw: ``draw_mergers`` or ``draw_polarizations``.

    Yields:
        Columns of the mergers that are kept, and of those that were rejected for being
        too faint: none of the latter where distances are adapted to an SNR.
    """
    size = round(settings.signal_length * settings.sample_rate)
    most = max(1, BATCH_SAMPLES // size)
    if settings.snr_range is None:
        yield from rejection_batches(
            lambda count: draw(count, settings),
            n,
            settings.min_snr,
            min(REJECTION_BATCH, most),
        )
        return
    batch = min(LOUD_BATCH, most)
    for start in range(0, n, batch):
        columns = draw(min(batch, n - start), settings)
        yield columns, {name: column[:0] for name, column in columns.items()}


def count_mergers(duration: int, settings: InjectionSettings) -> int:
    """How many mergers a segment has room for.

    Args:
        duration: Length of the segment, s.
        settings: Their times.

    Raises:
        SignalError: No merger fits into the segment.
    """
    if not has_room(duration, settings):
        raise SignalError(
            f"expected room for a merger from {settings.merger_length:g} s after the "
            f"start to {AFTER_MERGER_LENGTH:g} s before the end of the segment, found "
            f"the first at {settings.first_length:g} s in {duration} s"
        )
    last = duration - AFTER_MERGER_LENGTH - settings.jitter_length
    return int((last - settings.first_length) // settings.spacing_length) + 1


def has_room(duration: int, settings: InjectionSettings) -> bool:
    """Whether a merger fits into a segment of this length, s."""
    first, jitter = settings.first_length, settings.jitter_length
    return (
        first - jitter >= settings.merger_length
        and first + jitter + AFTER_MERGER_LENGTH <= duration
    )


def draw_times(n: int, t0: int, settings: InjectionSettings) -> NDArray[Any]:
    """Draw the times of mergers at a regular spacing with jitter.

    Args:
        n: Mergers, from ``count_mergers``.
        t0: GPS start of the segment, s.
        settings: Their times.

    Returns:
        GPS nanoseconds, int64, [n], increasing, each on a whole sample.
    """
    rate = settings.sample_rate
    jitter = settings.jitter_length * (2 * torch.rand(n, dtype=torch.float64) - 1)
    # float64: whole numbers times a float would be float32, 2 s off after a year.
    places = settings.spacing_length * torch.arange(n, dtype=torch.float64)
    times = settings.first_length + places + jitter
    # Whole samples, so that an injection needs no interpolation.
    # In order of time: jitter may swap neighbours, which are exchangeable.
    samples: NDArray[Any] = torch.round(times * rate).long().sort().values.numpy()
    # Seconds apart: nanoseconds of a year of samples, times the rate, exceed 63 bits.
    whole, rest = np.divmod(samples, rate)
    nanoseconds: NDArray[Any] = (t0 + whole) * NANOSECONDS + rest * NANOSECONDS // rate
    return nanoseconds


def signal_parameters(
    columns: Columns, ifos: tuple[str, ...]
) -> tuple[NDArray[Any], dict[str, NDArray[Any]]]:
    """Tell the strain of mergers from their parameters.

    Args:
        columns: From ``draw_mergers``.
        ifos: Detectors.

    Returns:
        Strain, float32, [n, ifos, size], and the other columns, float64, [n], with the
        delays as ``delay_{ifo}``.
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
    """What a file of mergers says about how they came to be."""
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
    """Draw from a seed; PyTorch's generator is then what it was before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def simulate_test_signals(
    t0: int, duration: int, settings: InjectionSettings, seed: int, command: str
) -> ProjectedSignals:
    """Fill a segment with mergers at a regular spacing with jitter.

    All are in memory; ``files.write_simulated_signals`` writes more.

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
