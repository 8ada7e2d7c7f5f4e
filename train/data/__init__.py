"""Data to train and test on: noise, glitches, mergers.

What is listed here is the public door, see docs/simulation.md. It is imported when it
is used: noise and glitches need no torch, mergers do.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from train.data.background import (
        BackgroundSettings,
        BackgroundStream,
        simulate_background,
        write_simulated_background,
    )
    from train.data.curves import curve_names, read_curve
    from train.data.drift import DriftSettings, drifting_noise
    from train.data.files import (
        write_simulated_polarizations,
        write_simulated_signals,
    )
    from train.data.glitches import draw_glitch, scale_to_snr
    from train.data.gwosc import fetch
    from train.data.gwosc_choice import make_plan
    from train.data.gwosc_plan import FetchSettings
    from train.data.injections import (
        draw_mergers,
        draw_polarizations,
        network_snr,
        project,
        project_polarizations,
        simulate_polarizations,
        simulate_test_signals,
    )
    from train.data.lines import LineNoise, detector_lines
    from train.data.noise import coloured_noise
    from train.data.population import InjectionSettings, draw_redshifts

_HOMES = {
    "background": (
        "BackgroundSettings",
        "BackgroundStream",
        "simulate_background",
        "write_simulated_background",
    ),
    "curves": ("curve_names", "read_curve"),
    "drift": ("DriftSettings", "drifting_noise"),
    "files": ("write_simulated_polarizations", "write_simulated_signals"),
    "gwosc": ("fetch",),
    "gwosc_choice": ("make_plan",),
    "gwosc_plan": ("FetchSettings",),
    "glitches": ("draw_glitch", "scale_to_snr"),
    "injections": (
        "draw_mergers",
        "draw_polarizations",
        "network_snr",
        "project",
        "project_polarizations",
        "simulate_polarizations",
        "simulate_test_signals",
    ),
    "lines": ("LineNoise", "detector_lines"),
    "noise": ("coloured_noise",),
    "population": ("InjectionSettings", "draw_redshifts"),
}
_MODULES = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "BackgroundSettings",
    "BackgroundStream",
    "DriftSettings",
    "FetchSettings",
    "InjectionSettings",
    "LineNoise",
    "coloured_noise",
    "curve_names",
    "detector_lines",
    "draw_glitch",
    "draw_mergers",
    "draw_polarizations",
    "draw_redshifts",
    "drifting_noise",
    "fetch",
    "make_plan",
    "network_snr",
    "project",
    "project_polarizations",
    "read_curve",
    "scale_to_snr",
    "simulate_background",
    "simulate_polarizations",
    "simulate_test_signals",
    "write_simulated_background",
    "write_simulated_polarizations",
    "write_simulated_signals",
]


def __getattr__(name: str) -> Any:
    """Import a public name from its module."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
