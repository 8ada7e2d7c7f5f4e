"""Write simulated mergers to signal files, batch by batch to limit memory."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chirpwatch.signals import (
    POLARIZATIONS,
    SignalWriter,
    amending_signals,
    new_set,
    shift_key,
    write_times,
)
from chirpwatch.train.data.signals.injections import (
    Columns,
    count_mergers,
    draw_mergers,
    draw_polarizations,
    draw_times,
    merger_batches,
    population_attributes,
    seeded,
    signal_parameters,
)
from chirpwatch.train.data.signals.population import InjectionSettings

ARRAYS = {"strain", "delays", "plus", "cross"}
"""Columns of drawn mergers that are not parameters."""


def write_simulated_signals(
    path: str | Path,
    spans: Sequence[tuple[int, int]],
    shifts: Sequence[Sequence[float]],
    settings: InjectionSettings,
    seed: int,
    command: str,
    keep_rejected: bool = False,
    progress: Callable[[int], None] = lambda count: None,
) -> dict[str, tuple[int, int]]:
    """Write a set of mergers for each segment and timeslide.

    Each set has its own seed, derived from ``seed``, segment and timeslide, so sets are
    independent. The seed is the set's attribute ``seed``; with it,
    ``injections.simulate_test_signals`` reproduces the set.

    Args:
        path: Signal file; the sets appear together or not at all.
        spans: GPS start and length of each segment, s.
        shifts: The shift of each detector, s, for each timeslide.
        settings: Population and times.
        seed: Random seed.
        command: Command line, for the attributes.
        keep_rejected: Whether to write the parameters of rejected mergers.
        progress: Called with the number of mergers written since the last call.

    Returns:
        The number of accepted and of rejected mergers in each set, by the set's name
        ``{t0}-{duration}/{shifts}``.

    Raises:
        SignalError: No merger fits into a segment, the file has a set already, or the
            disk is full.
    """
    rate = settings.sample_rate
    sets = [
        (t0, count_mergers(duration, settings), f"{t0}-{duration}/{shift_key(shift)}")
        for t0, duration in spans
        for shift in shifts
    ]
    counts = {}
    with amending_signals(path) as file:
        for t0, n, name in sets:
            set_seed = _derive_seed(seed, name.encode())
            writer = SignalWriter(
                new_set(file, path, f"test/{name}"),
                settings.ifos,
                rate,
                round(settings.merger_length * rate),
            )
            with seeded(set_seed):
                for columns, rejected in merger_batches(n, settings, draw_mergers):
                    strain, parameters = signal_parameters(columns, settings.ifos)
                    writer.append(
                        {ifo: strain[:, j] for j, ifo in enumerate(settings.ifos)},
                        parameters,
                    )
                    _reject(writer, rejected, keep_rejected)
                    file.check()
                    progress(len(strain))
                write_times(writer.group, draw_times(n, t0, settings))
            writer.finish(population_attributes(settings, command) | {"seed": set_seed})
            counts[name] = n, writer.num_rejected
    return counts


def write_simulated_polarizations(
    path: str | Path,
    split: str,
    n: int,
    settings: InjectionSettings,
    seed: int,
    command: str,
    keep_rejected: bool = False,
    progress: Callable[[int], None] = lambda count: None,
) -> int:
    """Write the plus and cross polarizations of mergers, for training.

    Args:
        path: Signal file; the set appears complete or not at all.
        split: ``train`` or ``valid``; the two are independent.
        n: Number of mergers.
        settings: Population, see ``draw_polarizations``.
        seed: Random seed.
        command: Command line, for the attributes.
        keep_rejected: Whether to write the parameters of rejected mergers.
        progress: Called with the number of mergers written since the last call.

    Returns:
        The number of rejected mergers.

    Raises:
        SignalError: The file has the set already, or the disk is full.
    """
    set_seed = _derive_seed(seed, split.encode())
    with amending_signals(path) as file, seeded(set_seed):
        writer = SignalWriter(
            new_set(file, path, split),
            POLARIZATIONS,
            settings.sample_rate,
            round(settings.merger_length * settings.sample_rate),
        )
        for columns, rejected in merger_batches(n, settings, draw_polarizations):
            waves = (columns["plus"].numpy(), columns["cross"].numpy())
            strain = dict(zip(POLARIZATIONS, waves, strict=True))
            writer.append(strain, _parameters(columns))
            _reject(writer, rejected, keep_rejected)
            file.check()
            progress(len(waves[0]))
        writer.finish(population_attributes(settings, command) | {"seed": set_seed})
        return writer.num_rejected


def _derive_seed(seed: int, name: bytes) -> int:
    """Seed of a set: 63 bits, since 32 bits would collide within a million sets."""
    state = np.random.SeedSequence([seed, *name]).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))


def _parameters(columns: Columns) -> dict[str, NDArray[Any]]:
    return {
        name: column.double().numpy()
        for name, column in columns.items()
        if name not in ARRAYS
    }


def _reject(writer: SignalWriter, rejected: Columns, keep: bool) -> None:
    """Count rejected mergers, and write their parameters if ``keep``."""
    writer.reject(_parameters(rejected), len(rejected["distance"]), keep)
