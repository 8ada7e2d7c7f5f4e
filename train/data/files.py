"""Simulated mergers of any number to files, in memory that does not grow with it."""

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
    """Fill segments with mergers, a set for each segment and timeslide.

    Each set draws from a seed of its own, made of ``seed``, segment and timeslide, so
    that no two are alike, in this call or another. The set's attribute ``seed`` has it:
    with that, ``injections.simulate_test_signals`` gives the same.

    Args:
        path: Signal file; the sets appear together or not at all.
        spans: GPS start and length of each segment, s.
        shifts: For each timeslide the shift of each detector, s.
        settings: Population and times.
        seed: Seed of everything that is drawn.
        command: How to make this again, for the attributes.
        keep_rejected: Whether the parameters of mergers that were too faint are kept.
        progress: Called with the number of mergers that were made since the last call.

    Returns:
        For each set, by its name ``{t0}-{duration}/{shifts}``, how many mergers it has
        and how many were rejected.

    Raises:
        SignalError: No merger fits into a segment, a set is in the file already, or
            the disk is full.
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
            own = _derived(seed, name.encode())
            writer = SignalWriter(
                new_set(file, path, f"test/{name}"),
                settings.ifos,
                rate,
                round(settings.merger_length * rate),
            )
            with seeded(own):
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
    """Write mergers to train on, as they arrive at the Earth.

    Args:
        path: Signal file; the set appears whole or not at all.
        split: ``train`` or ``valid``; the two are independent of one another.
        n: Mergers wanted.
        settings: Their population, see
            ``draw_polarizations``.
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
    with amending_signals(path) as file, seeded(own):
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
    # 63 bits: of a million seeds of 32 bits some would be equal.
    state = np.random.SeedSequence([seed, *name]).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))


def _parameters(columns: Columns) -> dict[str, NDArray[Any]]:
    return {
        name: column.double().numpy()
        for name, column in columns.items()
        if name not in ARRAYS
    }


def _reject(writer: SignalWriter, rejected: Columns, keep: bool) -> None:
    writer.reject(_parameters(rejected), len(rejected["distance"]), keep)
