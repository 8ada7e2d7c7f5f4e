"""Sensitive volume against closed forms."""

import math
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from astropy.cosmology import Planck18
from scipy.integrate import quad

from chirpwatch.errors import StatisticsError
from chirpwatch.train.data.signals.population import (
    InjectionSettings,
    draw_masses,
    draw_redshifts,
)
from chirpwatch.volume import (
    MASS_PAIRS,
    Population,
    sensitive_volume,
)

SETTINGS = InjectionSettings(
    min_mass=5,
    max_mass=100,
    snr_range=None,
    reference_share=0.3,
    max_redshift=1.0,
)


def population(settings):
    return Population(
        **{name: getattr(settings, name) for name in Population.__dataclass_fields__}
    )


@cache
def redshifts(n, max_redshift, time_dilation, seed):
    torch.manual_seed(seed)
    settings = replace(SETTINGS, max_redshift=max_redshift, time_dilation=time_dilation)
    return draw_redshifts(n, settings)[0].numpy()


def draw(n, settings, seed):
    """Detector-frame masses and redshifts, as the simulation draws them."""
    redshift = redshifts(n, settings.max_redshift, settings.time_dilation, seed)
    torch.manual_seed(1000 + seed)
    masses = [mass.numpy() for mass in draw_masses(n, settings)]
    if settings.source_frame:
        masses = [mass * (1 + redshift) for mass in masses]
    return *masses, redshift


def volume_to(limit):
    """Comoving volume out to a redshift, with time dilation, Mpc^3."""
    return quad(
        lambda z: (
            4
            * math.pi
            * Planck18.differential_comoving_volume(z).to_value("Mpc3 / sr")
            / (1 + z)
        ),
        0,
        limit,
    )[0]


@pytest.mark.parametrize("pair", MASS_PAIRS)
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"source_frame": True, "mass_distribution": "log_uniform"},
        {"time_dilation": True, "reference_share": 0.0},
        {"source_frame": True, "time_dilation": True, "reference_masses": (35.0, 20.0)},
    ],
    ids=["detector frame", "source frame", "time dilation", "both"],
)
def test_a_search_with_a_redshift_limit_has_the_volume_within_it(pair, changes):
    """The simulation's draws and the weights here are computed independently."""
    settings = replace(SETTINGS, **changes)
    mass_1, mass_2, redshift = draw(400_000, settings, seed=1)
    found = redshift < 0.4
    seen = sensitive_volume(
        population(settings),
        len(redshift),
        mass_1[found],
        mass_2[found],
        redshift[found],
        pair,
    )
    assert seen.covered > 0.999
    assert abs(seen.volume - volume_to(0.4)) < 3.5 * seen.volume_error
    assert seen.volume_error < 0.1 * seen.volume
    assert seen.distance**3 * 4 / 3 * math.pi == pytest.approx(seen.volume)


def test_nearby_the_volume_is_that_of_a_ball():
    settings = replace(
        SETTINGS, min_mass=24, max_mass=50, max_redshift=0.02, reference_share=0.0
    )
    mass_1, mass_2, redshift = draw(200_000, settings, seed=2)
    found = redshift < 0.01
    seen = sensitive_volume(
        population(settings),
        len(redshift),
        mass_1[found],
        mass_2[found],
        redshift[found],
        (35.0, 35.0),
    )
    reach = Planck18.comoving_distance(0.01).to_value("Mpc")
    assert seen.distance == pytest.approx(reach, rel=0.02)
    assert seen.distance_error == pytest.approx(
        seen.distance * seen.volume_error / seen.volume / 3
    )


def test_the_error_is_the_scatter_of_repeated_searches():
    settings = replace(SETTINGS, max_mass=50)
    truth, pulls = volume_to(0.3), []
    for seed in range(40):
        mass_1, mass_2, redshift = draw(10_000, settings, seed)
        found = redshift < 0.3
        seen = sensitive_volume(
            population(settings),
            len(redshift),
            mass_1[found],
            mass_2[found],
            redshift[found],
            (20.0, 10.0),
        )
        pulls.append((seen.volume - truth * seen.covered) / seen.volume_error)
    assert abs(np.mean(pulls)) < 3.5 / math.sqrt(40)
    assert 0.7 < np.std(pulls) < 1.4


def test_rejected_draws_reduce_the_volume_in_proportion():
    mass_1, mass_2, redshift = draw(50_000, SETTINGS, seed=3)
    one = sensitive_volume(
        population(SETTINGS), 50_000, mass_1, mass_2, redshift, (35.0, 20.0)
    )
    rejected = sensitive_volume(
        population(SETTINGS), 100_000, mass_1, mass_2, redshift, (35.0, 20.0)
    )
    assert rejected.volume == pytest.approx(one.volume / 2)
    assert rejected.volume_error < one.volume_error


def test_masses_outside_the_drawn_range_are_reported():
    """Binaries of 35 and 35 above 40 in the detector frame were never injected."""
    settings = replace(SETTINGS, max_mass=40, max_redshift=0.5)
    mass_1, mass_2, redshift = draw(200_000, settings, seed=4)
    seen = sensitive_volume(
        population(settings), len(redshift), mass_1, mass_2, redshift, (35.0, 35.0)
    )
    assert seen.covered < 0.1
    assert seen.volume == pytest.approx(volume_to(0.5) * seen.covered, rel=0.2)


def test_without_found_injections_the_volume_is_zero():
    seen = sensitive_volume(population(SETTINGS), 100, [], [], [], (35.0, 35.0))
    assert (seen.volume, seen.distance, seen.effective) == (0, 0, 0)
    assert math.isinf(seen.distance_error)


@pytest.mark.parametrize(
    ("changes", "draws", "redshift", "message"),
    [
        ({}, 0, 0.5, "more than 0 draws"),
        ({"reference_share": 1.0}, 1, 0.5, "a single pair of masses"),
        ({}, 1, 1.5, "up to 1, found 1.5"),
    ],
)
def test_injections_that_give_no_volume_are_refused(changes, draws, redshift, message):
    with pytest.raises(StatisticsError, match=message):
        sensitive_volume(
            population(replace(SETTINGS, **changes)),
            draws,
            [35.0],
            [35.0],
            [redshift],
            (35.0, 35.0),
        )
