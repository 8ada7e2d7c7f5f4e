"""Simulated noise, glitches and mergers, and open data from GWOSC: the public API.

See docs/explanation/simulation.md. A name is imported when it is first used: mergers
need torch, noise and glitches do not.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from chirpwatch.train.data.files import (
        write_simulated_polarizations,
        write_simulated_signals,
    )
    from chirpwatch.train.data.gwosc.choice import make_plan
    from chirpwatch.train.data.gwosc.fetch import fetch
    from chirpwatch.train.data.gwosc.plan import FetchSettings
    from chirpwatch.train.data.noise.background import (
        BackgroundSettings,
        BackgroundStream,
        simulate_background,
        write_simulated_background,
    )
    from chirpwatch.train.data.noise.curves import (
        curve_names,
        read_curve,
    )
    from chirpwatch.train.data.noise.drift import (
        DriftSettings,
        drifting_noise,
    )
    from chirpwatch.train.data.noise.glitches import (
        draw_glitch,
        scale_to_snr,
    )
    from chirpwatch.train.data.noise.lines import (
        LineNoise,
        detector_lines,
    )
    from chirpwatch.train.data.noise.spectra import coloured_noise
    from chirpwatch.train.data.signals.injections import (
        draw_mergers,
        draw_polarizations,
        network_snr,
        project,
        project_polarizations,
        simulate_test_signals,
    )
    from chirpwatch.train.data.signals.population import (
        InjectionSettings,
        draw_redshifts,
    )

_HOMES = {
    "noise.background": (
        "BackgroundSettings",
        "BackgroundStream",
        "simulate_background",
        "write_simulated_background",
    ),
    "noise.curves": ("curve_names", "read_curve"),
    "noise.drift": ("DriftSettings", "drifting_noise"),
    "files": ("write_simulated_polarizations", "write_simulated_signals"),
    "gwosc.fetch": ("fetch",),
    "gwosc.choice": ("make_plan",),
    "gwosc.plan": ("FetchSettings",),
    "noise.glitches": ("draw_glitch", "scale_to_snr"),
    "signals.injections": (
        "draw_mergers",
        "draw_polarizations",
        "network_snr",
        "project",
        "project_polarizations",
        "simulate_test_signals",
    ),
    "noise.lines": ("LineNoise", "detector_lines"),
    "noise.spectra": ("coloured_noise",),
    "signals.population": ("InjectionSettings", "draw_redshifts"),
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
