"""Simulated mergers of any number to files, in memory that does not grow with it."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from chirpwatch.signals import (
    POLARIZATIONS,
    SignalWriter,
    amending_signals,
    new_set,
    shift_key,
    write_times,
)
from train.data.injections import (
    Columns,
    count_mergers,
    draw_mergers,
    draw_polarizations,
    draw_times,
    merger_batches,
    population_attributes,
    signal_parameters,
)
from train.data.population import InjectionSettings

ARRAYS = {"strain", "delays", "plus", "cross"}


def write_simulated_signals(
    path: str | Path,
    t0: int,
    duration: int,
    shifts: Sequence[Sequence[float]],
    settings: InjectionSettings,
    seed: int,
    command: str,
    keep_rejected: bool = False,
    progress: Callable[[int], None] = lambda count: None,
) -> dict[str, tuple[int, int]]:
    """Fill a segment with mergers, a set of its own for each timeslide.

    The first set is what :func:`train.data.injections.simulate_test_signals` gives for
    this seed; each further one draws from seed and timeslide.

    Args:
        path: Signal file; the sets appear together or not at all.
        t0: GPS start of the segment, s.
        duration: Length of the segment, s.
        shifts: For each timeslide the shift of each detector, s.
        settings: Population and times.
        seed: Seed of everything that is drawn.
        command: How to make this again, for the attributes.
        keep_rejected: Whether the parameters of mergers that were too faint are kept.
        progress: Called with the number of mergers that were made since the last call.

    Returns:
        For each timeslide, by its name, how many mergers it has and how many were
        rejected.

    Raises:
        SignalError: No merger fits into the segment, a set is in the file already, or
            the disk is full.
    """
    n, rate = count_mergers(duration, settings), settings.sample_rate
    counts = {}
    with amending_signals(path) as file:
        for i, shift in enumerate(shifts):
            key = shift_key(shift)
            own = _derived(seed, key.encode()) if i else seed
            torch.manual_seed(own)
            writer = SignalWriter(
                new_set(file, path, f"test/{t0}-{duration}/{key}"),
                settings.ifos,
                rate,
                round(settings.merger_length * rate),
            )
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
            writer.finish(population_attributes(settings, command) | {"seed": own})
            counts[key] = n, writer.num_rejected
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
    """Write mergers to train on, as they arrive at the Earth.

    Args:
        path: Signal file; the set appears whole or not at all.
        split: ``train`` or ``valid``; the two are independent of one another.
        n: Mergers wanted.
        settings: Their population, see
            :func:`train.data.injections.draw_polarizations`.
        seed: Seed of everything that is drawn.
        command: How to make this again, for the attributes.
        keep_rejected: Whether the parameters of mergers that were too faint are kept.
        progress: Called with the number of mergers that were made since the last call.

    Returns:
        How many mergers were rejected.

    Raises:
        SignalError: The set is in the file already, or the disk is full.
    """
    own = _derived(seed, split.encode())
    torch.manual_seed(own)
    with amending_signals(path) as file:
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
        writer.finish(population_attributes(settings, command) | {"seed": own})
        return writer.num_rejected


def _derived(seed: int, name: bytes) -> int:
    return int(np.random.SeedSequence([seed, *name]).generate_state(1)[0])


def _parameters(columns: Columns) -> dict[str, np.ndarray]:
    return {
        name: column.double().numpy()
        for name, column in columns.items()
        if name not in ARRAYS
    }


def _reject(writer: SignalWriter, rejected: Columns, keep: bool) -> None:
    writer.reject(_parameters(rejected), len(rejected["distance"]), keep)
