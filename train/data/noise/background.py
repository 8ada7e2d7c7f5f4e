"""Simulated background strain: noise with drift, lines, glitches and gaps."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chirpwatch.background_file import NewSegment, write_segments
from chirpwatch.errors import ConfigurationError
from chirpwatch.train.data.noise.curves import (
    curve_names,
    read_curve,
)
from chirpwatch.train.data.noise.drift import (
    DriftSettings,
    drifting_noise,
)
from chirpwatch.train.data.noise.families import (
    FAMILIES,
    WEIGHTS,
)
from chirpwatch.train.data.noise.glitches import (
    draw_glitch,
    draw_snrs,
    scale_to_snr,
)
from chirpwatch.train.data.noise.lines import (
    LineNoise,
    detector_lines,
)

GLITCH_LENGTH = 4.0
"""Length of a glitch's waveform, s; the glitch is in its middle."""

GLITCH_HIGHPASS = 32.0
"""Low-frequency cutoff of a glitch's SNR, Hz."""

GLITCH_SNRS = (5.0, 100.0)
"""Default smallest and largest SNR of a glitch."""


@dataclass(frozen=True)
class BackgroundSettings:
    """Properties of simulated background strain.

    Attributes:
        run: Observing run whose noise curves are used.
        curves: Names of the run's curves; with several, the spectrum drifts between
            them. Empty: the first of ``curve_names``, or with drift all of them.
        drift: Drift of the spectrum; None for stationary noise.
        lines: Whether mains, violin modes and calibration lines are added.
        glitch_rate: Rate of glitches in each detector, Hz.
        glitch_weights: Relative rate of each family of glitches.
        glitch_snrs: Smallest and largest optimal SNR of a glitch, above 32 Hz in the
            first curve.
        glitch_index: Index of the SNR's power law.

    Raises:
        ConfigurationError: A value is out of range.
    """

    run: str = "O3"
    curves: tuple[str, ...] = ()
    drift: DriftSettings | None = None
    lines: bool = False
    glitch_rate: float = 0.0
    glitch_weights: Mapping[str, float] = field(default_factory=lambda: dict(WEIGHTS))
    glitch_snrs: tuple[float, float] = GLITCH_SNRS
    glitch_index: float = -1.0

    def __post_init__(self) -> None:
        weights = list(self.glitch_weights.values())
        unknown = set(self.glitch_weights) - set(FAMILIES)
        low, high = self.glitch_snrs
        rules = {
            "one curve where the spectrum does not drift": (
                self.drift is not None or len(self.curves) < 2,
                "curves",
            ),
            "a glitch rate of zero or more": (self.glitch_rate >= 0, "glitch_rate"),
            "an SNR range above zero, the smaller first": (
                0 < low <= high,
                "glitch_snrs",
            ),
            f"families of {', '.join(FAMILIES)}": (not unknown, "glitch_weights"),
            "weights of zero or more, one above zero": (
                min(weights, default=-1) >= 0 < max(weights, default=0),
                "glitch_weights",
            ),
        }
        for rule, (kept, name) in rules.items():
            if not kept:
                raise ConfigurationError(
                    f"background: expected {rule}; found {name} {getattr(self, name)}"
                )


class BackgroundStream:
    """Simulates one detector's strain, piece by piece to limit memory.

    Args:
        duration: s.
        ifo: Detector.
        sample_rate: Hz.
        settings: Properties of the strain.
        seed: Several numbers; see ``simulate_background``.

    Attributes:
        glitch_times: Centres of the glitches, s from the start, increasing, [glitches].

    Raises:
        ConfigurationError: The curves do not reach half the sample rate.
    """

    def __init__(
        self,
        duration: int,
        ifo: str,
        sample_rate: int,
        settings: BackgroundSettings,
        seed: Sequence[int],
    ) -> None:
        names = settings.curves or curve_names(settings.run, ifo)
        if not settings.drift:
            names = names[:1]
        self.curves = [
            read_curve(settings.run, ifo, name=name, sample_rate=sample_rate)
            for name in names
        ]
        self.size, self.sample_rate, self.settings = (
            duration * sample_rate,
            sample_rate,
            settings,
        )
        self.rng = np.random.default_rng([*seed, *ifo.encode()])
        # Separate generators, so that lines and glitches do not change the noise.
        self.line_rng, self.glitch_rng = self.rng.spawn(2)
        self.lines = detector_lines(ifo, self.line_rng) if settings.lines else []
        self.glitch_size = round(GLITCH_LENGTH * sample_rate)
        room = self.size - self.glitch_size
        count = self.glitch_rng.poisson(settings.glitch_rate * duration)
        self.starts = np.sort(
            self.glitch_rng.integers(0, max(room, 0) + 1, count if room > 0 else 0)
        )
        times = (self.starts + self.glitch_size / 2) / sample_rate
        self.glitch_times: list[float] = times.tolist()

    def pieces(self) -> Iterator[NDArray[Any]]:
        """Generate the strain; can be called once.

        Yields:
            Consecutive pieces of strain, float64, [n].
        """
        still = DriftSettings(level=0, tilt=0, lines=0, mixing=0)
        noise = drifting_noise(
            self.curves,
            self.size,
            self.sample_rate,
            self.rng,
            self.settings.drift or still,
        )
        lines = LineNoise(self.lines, self.curves[0], self.sample_rate, self.line_rng)
        begin, upcoming = 0, list(self.starts)
        # Glitches that overlap the current piece: first sample and waveform.
        active: list[tuple[int, NDArray[Any]]] = []
        for piece in noise:
            if self.lines:
                piece += lines.draw(len(piece))
            end = begin + len(piece)
            while upcoming and upcoming[0] < end:
                active.append((upcoming.pop(0), self._glitch()))
            for start, glitch in active:
                first, last = max(start, begin), min(start + len(glitch), end)
                piece[first - begin : last - begin] += glitch[
                    first - start : last - start
                ]
            active = [
                (start, glitch) for start, glitch in active if start + len(glitch) > end
            ]
            begin = end
            yield piece

    def _glitch(self) -> NDArray[Any]:
        settings, size = self.settings, self.glitch_size
        shape = draw_glitch(
            size, size / 2, self.sample_rate, self.glitch_rng, settings.glitch_weights
        )
        snr = draw_snrs(1, settings.glitch_snrs, settings.glitch_index, self.glitch_rng)
        return scale_to_snr(
            shape, self.curves[0], snr[0], self.sample_rate, GLITCH_HIGHPASS
        )


def simulate_background(
    duration: int,
    run: str,
    ifos: Sequence[str],
    sample_rate: int,
    seed: int | Sequence[int],
    glitch_rate: float = 0.0,
) -> tuple[dict[str, NDArray[Any]], dict[str, list[float]]]:
    """Simulate independent strain of several detectors.

    Args:
        duration: s.
        run: Observing run whose noise curves are used.
        ifos: Detectors.
        sample_rate: Hz.
        seed: One number or several. Each detector's generator is seeded with it and the
            detector's name; independent segments need different seeds.
        glitch_rate: Rate of glitches in each detector, Hz; their SNRs are log-uniform
            from 5 to 100.

    Returns:
        Each detector's strain, float64, [duration * sample_rate], and the times of its
        glitches, s from the start.

    Raises:
        ConfigurationError: The curves do not reach half the sample rate.
    """
    settings = BackgroundSettings(run=run, glitch_rate=glitch_rate)
    seeds = [seed] if isinstance(seed, int) else list(seed)
    streams = {
        ifo: BackgroundStream(duration, ifo, sample_rate, settings, seeds)
        for ifo in ifos
    }
    strain = {
        ifo: np.concatenate(list(stream.pieces())) for ifo, stream in streams.items()
    }
    return strain, {ifo: stream.glitch_times for ifo, stream in streams.items()}


def draw_live_times(
    duration: int,
    gap_rate: float,
    gap_length: float,
    min_length: int,
    rng: np.random.Generator,
) -> list[tuple[int, int]]:
    """Draw gaps in a span of time, and return the segments between them.

    Args:
        duration: Length of the span, s.
        gap_rate: Rate of gaps in the livetime, Hz; the time between gaps is
            exponentially distributed.
        gap_length: Mean length of a gap, s; exponentially distributed, at least 1 s.
        min_length: Shortest segment to return, s.
        rng: Random generator.

    Returns:
        Start and length of each segment, whole s from the start of the span.
    """
    segments, start = [], 0
    while start < duration:
        live = rng.exponential(1 / gap_rate) if gap_rate else duration
        stop = min(duration, start + int(live))
        if stop - start >= min_length:
            segments.append((start, stop - start))
        start = stop + max(1, round(rng.exponential(gap_length)))
    return segments


def write_simulated_background(
    path: str | Path,
    split: str,
    spans: Sequence[tuple[int, int]],
    ifos: Sequence[str],
    sample_rate: int,
    settings: BackgroundSettings,
    seed: int,
    command: str,
) -> int:
    """Simulate segments of background, and write them piece by piece to limit memory.

    Args:
        path: Background file; the segments appear together or not at all.
        split: ``train``, ``valid`` or ``test``.
        spans: GPS start and length of each segment, s.
        ifos: Detectors; their noise is independent.
        sample_rate: Hz.
        settings: Properties of the strain.
        seed: Random seed; segments and splits are independent.
        command: Command line, for the attributes.

    Returns:
        Total number of glitches.

    Raises:
        StrainError: The file has a segment already, or the disk is full.
        ConfigurationError: The curves do not reach half the sample rate.
    """
    count = 0

    def segments() -> Iterator[NewSegment]:
        nonlocal count
        for start, duration in spans:
            streams = {
                ifo: BackgroundStream(
                    duration, ifo, sample_rate, settings, [seed, start, *split.encode()]
                )
                for ifo in ifos
            }
            attributes = {
                "simulated": True,
                "command": command,
                "seed": seed,
                "noise_curves": settings.run,
                "drift": str(settings.drift or "none"),
                "lines": settings.lines,
                "settings": json.dumps(asdict(settings)),
            }
            # Datasets, since an attribute holds at most 64 KB: a few days of glitches.
            glitches = {
                f"glitches/{ifo}": np.array(stream.glitch_times) + start
                for ifo, stream in streams.items()
            }
            count += sum(map(len, glitches.values()))
            pieces = {ifo: stream.pieces() for ifo, stream in streams.items()}
            yield NewSegment(start, duration, pieces, attributes, glitches)

    write_segments(path, split, segments(), sample_rate)
    return count
