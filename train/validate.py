"""What a network finds: shares at false-positive rates, and when mergers were.

A signal counts as found if the score of one window, with the merger at a random place
in it as in training, exceeds the threshold; a running search looks at several windows
of each merger and finds more (:mod:`train.deployment`). Thresholds come from noise
whitened as served, in blocks that begin 8 s after a start; every score of the dense
evaluation is one window. None is given that fewer than :data:`LEAST_ABOVE` windows of
noise exceed.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from chirpwatch.atomic import replacing
from chirpwatch.errors import ConfigurationError
from chirpwatch.statistics import wilson_interval
from train.baseline import SeedResNet
from train.heldout import OtherNoise
from train.models import Scorer
from train.optimal import optimal_curves
from train.scoring import channels_last, device_of, has_slides, score_windows
from train.windows import WindowMaker, WindowSettings

MASSES = ((35.0, 35.0), (35.0, 20.0), (20.0, 20.0), (20.0, 10.0))
SNRS = (6.0, 8.0, 10.0, 12.0)
"""Network SNRs of the table; a full validation has further ones for its curves."""

CURVE_SNRS = (4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 12.0, 14.0, 16.0, 20.0)
RATES = (1e-3, 1e-4, 1e-5, 1e-6)
TABLE_RATES = (1e-3, 1e-4)
VALIDATION_SEED = 1000
GLITCH_SHARE = 0.1
NOT_MEASURED = "n/a"
LEAST_ABOVE = 10
BATCH = 256
SCATTER_SNRS = (4.0, 60.0)
CALIBRATION_BINS = 10
OTHER_NOISE_SHARE = 0.25
"""Noise and signals for each further kind of noise, as a share of the first one's."""


@dataclass(frozen=True)
class Effort:
    """How much is drawn.

    Attributes:
        noise_length: Noise of each detector, s; rounded up to whole sets of stretches.
        slides: Blocks of one detector that each block of the other meets.
        signals: Windows for each pair of masses and SNR.
        glitch_windows: Noise windows with a glitch.
        snrs: Network SNRs of the signals.
        scatter: Signals of any mass and SNR.
        batches: Batches as in training, for the calibration.
        optimum_windows: Noise windows of each pair's matched filter.
        optimum_signals: Its mergers.
        stretches: Noise stretches at a time, at least as many as slides.
        bank_size: Waveforms of the signals of any mass.
    """

    noise_length: float = 100_800
    slides: int = 16
    signals: int = 2000
    glitch_windows: int = 100_000
    snrs: tuple[float, ...] = CURVE_SNRS
    scatter: int = 3000
    batches: int = 60
    optimum_windows: int = 200_000
    optimum_signals: int = 2000
    stretches: int = 20
    bank_size: int = 512


FULL = Effort()
QUICK = Effort(
    noise_length=12_000,
    signals=300,
    glitch_windows=10_000,
    scatter=1500,
    batches=20,
    optimum_windows=30_000,
    optimum_signals=500,
)
# Networks whose slides are as dear as their windows, and at one score a window.
DENSE = replace(FULL, noise_length=14_400, slides=1, signals=500, glitch_windows=20_000)
WINDOWED = replace(
    FULL, slides=1, signals=500, glitch_windows=20_000, snrs=SNRS, batches=20
)


def effort_of(network: Scorer, quick: bool = False) -> Effort:
    """How much to draw for a network; less where a window costs more."""
    if has_slides(network):
        return QUICK if quick else FULL
    effort = WINDOWED if isinstance(network, SeedResNet) else DENSE
    if not quick:
        return effort
    return replace(
        QUICK,
        slides=1,
        signals=100,
        noise_length=effort.noise_length / 6,
        glitch_windows=2000,
        snrs=SNRS,
        scatter=500,
        batches=4,
    )


class FalsePositives:
    """Scores of noise, a share of whose windows has a glitch.

    Args:
        noise: Scores of windows without a glitch, [n].
        glitch: Scores of windows with one, [m].
        share: Share of the windows that have a glitch.
    """

    def __init__(self, noise: Tensor, glitch: Tensor, share: float) -> None:
        scores = torch.cat([noise, glitch]) if share else noise
        weights = torch.full((len(scores),), (1 - share) / len(noise)).double()
        if share:
            weights[len(noise) :] = share / len(glitch)
        self._scores, order = scores.sort(descending=True)
        weights = weights[order]
        self._shares = weights.cumsum(0)
        # Independent windows of one weight that know a share as well (Kish 1965).
        self._counts = self._shares**2 / (weights**2).cumsum(0)

    def threshold(self, rate: float) -> tuple[float, float]:
        """Score that a false-positive rate belongs to.

        Returns:
            The smallest score that no more than ``rate`` of the windows exceed, and
            how many independent windows do.
        """
        first = int(torch.searchsorted(self._shares, rate, right=True))
        first = min(first, len(self._scores) - 1)
        above = float(self._counts[first - 1]) if first else 0.0
        return float(self._scores[first]), above

    def thresholds(self, rates: Sequence[float]) -> dict[str, float]:
        """Thresholds at those of the rates that enough windows exceed."""
        found = {rate: self.threshold(rate) for rate in rates}
        return {
            str(rate): limit
            for rate, (limit, above) in found.items()
            if round(above, 6) >= LEAST_ABOVE
        }

    def rate(self, limit: float) -> float:
        """Share of the windows whose score exceeds ``limit``."""
        # Ascending, as searchsorted has it.
        above = int(torch.searchsorted(-self._scores, -limit))
        return float(self._shares[above - 1]) if above else 0.0


def mixture_threshold(
    noise: Tensor, glitch: Tensor, share: float, rate: float
) -> float:
    """Score that a false-positive rate belongs to, see :class:`FalsePositives`."""
    return FalsePositives(noise, glitch, share).threshold(rate)[0]


class Validation:
    """Draws windows of one kind of noise, and scores them.

    Args:
        network: What is judged; BatchNorm is folded.
        seed: Seed of all windows; another than in training.
        effort: How much noise and how many waveforms are kept at a time.
        noise: The kind of noise; O3's curves if None.
    """

    def __init__(
        self,
        network: Scorer,
        seed: int,
        effort: Effort = FULL,
        noise: OtherNoise | None = None,
    ) -> None:
        noise = noise or OtherNoise("O3")
        torch.manual_seed(seed)
        self.network: Any = network.fused()
        self.geometry = network.geometry
        self.recorded = noise.glitches
        self.settings = replace(
            WindowSettings(),
            runs=(noise.run,),
            stretches=effort.stretches,
            bank_size=effort.bank_size,
        )
        if noise.glitch_weights is not None:
            self.settings = replace(self.settings, glitch_weights=noise.glitch_weights)
        self.maker = WindowMaker(
            network.geometry, self.settings, seed, noise.sources, device_of(network)
        )

    def refresh(self) -> None:
        """Make all noise anew."""
        for pool in self.maker.pools:
            pool.seek(pool.turn)

    @torch.inference_mode()
    def noise_scores(self, length: float, slides: int) -> Tensor:
        """Score noise without signals.

        Args:
            length: Noise of each detector, s.
            slides: Blocks of one detector that each block of the other meets.

        Returns:
            Scores, [windows].
        """
        pools = self.maker.pools
        per_pass = len(pools[0].blocks) * self.geometry.psd_refresh_length
        result = []
        for number in range(math.ceil(length / per_pass)):
            if number:
                self.refresh()
            strain = torch.stack([pool.blocks for pool in pools], 1)
            # Neighbours of one stretch would share its PSD's error.
            shifts = [slide * pools[0].per_stretch for slide in range(slides)]
            if has_slides(self.network):
                result += self._slides(strain, shifts)
                continue
            for shift in shifts:
                slid = strain.clone()
                slid[:, 1:] = strain[:, 1:].roll(shift, 0)
                result += [self._plain(x) for x in torch.split(slid, BATCH // 8)]
        return torch.cat(result).cpu()

    def _slides(self, strain: Tensor, shifts: Sequence[int]) -> list[Tensor]:
        features = torch.cat(
            [self.network.features(x) for x in torch.split(strain, BATCH // 8)]
        )
        result = []
        for shift in shifts:
            total = features[:, 0] + features[:, 1:].roll(shift, 0).sum(1)
            result += [
                self.network.head.forward_sum(channels_last(x))[0].flatten()
                for x in torch.split(total, 8)
            ]
        return result

    def _plain(self, blocks: Tensor) -> Tensor:
        """Scores of blocks, [n, ifos, time]: of each stride, or of each second."""
        if isinstance(self.network, SeedResNet):
            size = self.geometry.kernel_size
            windows = blocks.unfold(-1, size, size).transpose(1, 2).flatten(0, 1)
            return score_windows(self.network, windows)
        scores: Tensor = self.network(blocks).flatten().float()
        return scores

    @torch.inference_mode()
    def window_scores(
        self, bank: Tensor | None, snrs: Tensor | None, glitches: Tensor
    ) -> Tensor:
        """Score single windows.

        Args:
            bank: Waveform of each signal, [n]; any one if None.
            snrs: Network SNR of each signal, [n]; no signals if None.
            glitches: Whether the window has a glitch in one detector, bool, [n].

        Returns:
            Scores, [n].
        """
        result, maker = [], self.maker
        for start in range(0, len(glitches), BATCH):
            chosen = slice(start, start + BATCH)
            dirty = glitches[chosen]
            rows = maker.draw_rows(len(dirty))
            windows = maker.noise(rows)
            if dirty.any():
                place = torch.nonzero(dirty).flatten()
                windows[place] = self._disturb(windows[place], rows[place])
            if snrs is not None:
                rendered = None if bank is None else bank[chosen]
                windows = windows + maker.signals(rows, snrs[chosen], rendered)[0]
            result.append(score_windows(self.network, windows))
        return torch.cat(result).cpu()

    def _disturb(self, windows: Tensor, rows: Tensor) -> Tensor:
        """Put a glitch into one detector of each window, at any time."""
        n, ifos = rows.shape
        lone = torch.nn.functional.one_hot(torch.randint(ifos, (n,)), ifos)[..., None]
        lone = lone.to(windows.device)
        if self.recorded is None:
            no_merger = torch.zeros(n, dtype=torch.bool)
            return windows + self.maker.lone_disturbances(rows, no_merger) * lone
        size = windows.shape[-1]
        pieces = self.recorded.unfold(-1, size, 1)
        starts = torch.randint(1, size, (n,))
        recorded = pieces[torch.randint(len(self.recorded), (n,)), starts]
        # They come with their own noise.
        return torch.where(lone > 0, recorded[:, None].to(windows.device), windows)

    @torch.inference_mode()
    def peak_offsets(self, n: int, snr: float) -> Tensor:
        """Where mergers lie behind the frame that the loudest score points to.

        Args:
            n: Signals, their masses as in training.
            snr: Their network SNR.

        Returns:
            Samples from the start of the frame to the merger in the detector that it
            reaches first, [n].
        """
        geometry, maker = self.geometry, self.maker
        margin_size = geometry.kernel_size // 2
        result = []
        for start in range(0, n, BATCH):
            rows = maker.draw_rows(min(BATCH, n - start))
            signals, mergers = maker.signals(
                rows, torch.full((len(rows),), snr), margin_size=margin_size
            )
            windows = maker.noise(rows, margin_size) + signals
            scores, peaks = self.network.head(self.network.features(windows))
            best = scores.argmax(1, keepdim=True)
            frame = best * geometry.stride_size + peaks.gather(1, best) * (
                geometry.frame_size
            )
            result.append(mergers.min(1).values.cpu() - frame.squeeze(1).cpu())
        return torch.cat(result)


def calibrate(validation: Validation, n: int) -> dict[str, float]:
    """Measure the offset of the merger from the frame that ``peak`` points to.

    Args:
        validation: Of the network in question.
        n: Signals at each of the SNRs 10, 14 and 20.

    Returns:
        ``peak_offset_size``, the median in samples; ``peak_offset_p05`` and ``…_p95``,
        quantiles; ``peak_within_sixteenth``, the share whose time is right to 1/16 s.
    """
    offsets = torch.cat([validation.peak_offsets(n, snr) for snr in (10.0, 14.0, 20.0)])
    median = offsets.median()
    limit = validation.geometry.sample_rate / 16
    low, high = torch.quantile(offsets, torch.tensor([0.05, 0.95])).tolist()
    return {
        "peak_offset_size": float(median),
        "peak_offset_p05": low,
        "peak_offset_p95": high,
        "peak_within_sixteenth": float(
            ((offsets - median).abs() < limit).float().mean()
        ),
    }


@torch.inference_mode()
def reliability(validation: Validation, batches: int) -> dict[str, Any]:
    """Compare the sigmoid of the score with how often there is a signal.

    Args:
        validation: Of the network in question, none of whose noise was replaced.
        batches: Batches as at the end of the training.

    Returns:
        JSON-ready: ``bins``, each with ``predicted`` (mean), ``share`` with a signal
        and ``windows``; ``prior``, ``windows``, and ``error``, the mean difference of
        the two, weighted by windows.
    """
    scores, labels = [], []
    for index in range(batches):
        windows, label, *_ = validation.maker.batch(index, validation.settings.last_snr)
        scores.append(score_windows(validation.network, windows).cpu())
        labels.append(label.cpu())
    predicted, label = torch.cat(scores).double().sigmoid(), torch.cat(labels).double()
    places = (predicted * CALIBRATION_BINS).long().clamp(max=CALIBRATION_BINS - 1)
    bins = []
    for place in range(CALIBRATION_BINS):
        inside = places == place
        if inside.any():
            bins.append(
                {
                    "predicted": float(predicted[inside].mean()),
                    "share": float(label[inside].mean()),
                    "windows": int(inside.sum()),
                }
            )
    error = sum(x["windows"] * abs(x["predicted"] - x["share"]) for x in bins)
    return {
        "bins": bins,
        "prior": float(label.mean()),
        "windows": len(label),
        "error": error / len(label),
    }


def scatter(validation: Validation, n: int) -> dict[str, list[float]]:
    """Score mergers of any mass, their SNR uniform in the logarithm.

    Replaces the validation's bank of waveforms.

    Args:
        validation: Of the network in question.
        n: Mergers.

    Returns:
        Columns [n]: ``snr``, ``mass_1``, ``mass_2``, ``score``.
    """
    settings = validation.settings
    ratio = settings.max_mass / settings.min_mass
    size = settings.bank_size
    masses = settings.min_mass * ratio ** torch.rand(size, 2)
    masses = masses.sort(1, descending=True).values
    validation.maker.set_bank(masses, torch.zeros(size, 2))
    bank = torch.randint(size, (n,))
    low, high = SCATTER_SNRS
    snrs = low * (high / low) ** torch.rand(n)
    clean = torch.zeros(n, dtype=torch.bool)
    columns = {
        "snr": snrs,
        "mass_1": masses[bank, 0],
        "mass_2": masses[bank, 1],
        "score": validation.window_scores(bank, snrs, clean),
    }
    return {
        name: [round(x, 3) for x in column.tolist()] for name, column in columns.items()
    }


@dataclass(frozen=True)
class Scores:
    """What a network gives noise and the mergers of the reference masses.

    Attributes:
        kinds: False positives of noise alone and of noise with glitches.
        signals: Scores by masses' index, SNR and kind, [n].
        noise_windows: Noise windows without a glitch.
    """

    kinds: dict[str, FalsePositives]
    signals: dict[tuple[int, float, str], Tensor]
    noise_windows: int

    def found(
        self, index: int, snr: float, kind: str, limits: Mapping[str, float]
    ) -> dict[str, float]:
        """Share of signals above each of the thresholds."""
        scores = self.signals[index, snr, kind]
        return {
            rate: float((scores > limit).double().mean())
            for rate, limit in limits.items()
        }


def _score(validation: Validation, effort: Effort) -> Scores:
    """Score noise and the reference masses; replaces the bank of waveforms."""
    noise = validation.noise_scores(effort.noise_length, effort.slides)
    every = torch.ones(effort.glitch_windows, dtype=torch.bool)
    glitch = validation.window_scores(None, None, every)
    validation.maker.set_bank(torch.tensor(MASSES), torch.zeros(len(MASSES), 2))
    signals = {}
    n, dirty = effort.signals, round(effort.signals * GLITCH_SHARE)
    mask = torch.arange(n + dirty) >= n
    for index in range(len(MASSES)):
        for snr in effort.snrs:
            scores = validation.window_scores(
                torch.full((n + dirty,), index), torch.full((n + dirty,), snr), mask
            )
            signals[index, snr, "gaussian"] = scores[:n]
            # A tenth of the clean ones makes room for those with a glitch.
            signals[index, snr, "glitches"] = scores[dirty:]
    kinds = {
        "gaussian": FalsePositives(noise, glitch, 0),
        "glitches": FalsePositives(noise, glitch, GLITCH_SHARE),
    }
    return Scores(kinds, signals, len(noise))


def _tables(scores: Scores, effort: Effort) -> dict[str, Any]:
    """Thresholds and shares found, JSON-ready."""
    thresholds = {kind: false.thresholds(RATES) for kind, false in scores.kinds.items()}
    found: dict[str, list[dict[str, Any]]] = {kind: [] for kind in thresholds}
    curves: dict[str, list[dict[str, Any]]] = {kind: [] for kind in thresholds}
    for kind, limits in thresholds.items():
        for index, (mass_1, mass_2) in enumerate(MASSES):
            for snr in effort.snrs:
                entry = {
                    "mass_1": mass_1,
                    "mass_2": mass_2,
                    "snr": snr,
                    "found": scores.found(index, snr, kind, limits),
                }
                curves[kind].append(entry)
                if snr in SNRS:
                    found[kind].append(entry)
    return {
        "noise_windows": scores.noise_windows,
        "thresholds": thresholds,
        "found": found,
        "efficiency": curves,
    }


def _roc(scores: Scores, effort: Effort) -> dict[str, Any]:
    """Share found against false-positive rate, all masses together."""
    rates = np.logspace(-7, 0, 57)
    result: dict[str, Any] = {}
    for kind, false in scores.kinds.items():
        limits = false.thresholds([float(f"{rate:.4g}") for rate in rates])
        found = {}
        for snr in sorted(set(SNRS) & set(effort.snrs)):
            shares = [
                scores.found(index, snr, kind, limits) for index in range(len(MASSES))
            ]
            found[str(snr)] = [
                float(np.mean([one[rate] for one in shares])) for rate in limits
            ]
        result[kind] = {"rates": [float(rate) for rate in limits], "found": found}
    return result


def validate(
    network: Scorer,
    seed: int = VALIDATION_SEED,
    *,
    quick: bool = False,
    noises: Sequence[OtherNoise] = (),
    **sizes: Any,
) -> dict[str, Any]:
    """Measure shares found, with and without glitches, and what else a report shows.

    Args:
        network: What is judged.
        seed: Seed of all windows.
        quick: Draw less: about a minute of one core in place of six.
        noises: Further kinds of noise.
        **sizes: Fields of :class:`Effort` to be set.

    Returns:
        JSON-ready figures: ``thresholds`` and ``found``, for ``gaussian`` noise and
        for ``glitches`` (a tenth of all windows, signals' too, has a glitch in one
        detector), at those of :data:`RATES` that the noise suffices for;
        ``efficiency``, the same at more SNRs; ``roc``; ``scatter``; ``calibration``;
        ``optimal``, see :func:`train.optimal.optimal_curves`; ``noises``, for each
        further one thresholds and shares found, and the rate (``held_rates``) at
        which its windows exceed the first noise's thresholds; and ``timing``, empty
        for a network that tells none.

    Raises:
        ConfigurationError: There are more slides than stretches.
    """
    effort = replace(effort_of(network, quick), **sizes)
    if effort.slides > effort.stretches:
        raise ConfigurationError(
            f"validation: expected no more slides than the {effort.stretches} noise "
            f"stretches, found {effort.slides}: they would repeat"
        )
    validation = Validation(network, seed, effort)
    result: dict[str, Any] = {
        "run": "O3",
        "simulated": True,
        "seed": seed,
        "slides": effort.slides,
        "signals": effort.signals,
        "glitch_windows": effort.glitch_windows,
        # First, since it takes the noise and the waveforms in the training's order.
        "calibration": reliability(validation, effort.batches),
    }
    tells = has_slides(network)
    result["timing"] = calibrate(validation, effort.signals) if tells else {}
    result["scatter"] = scatter(validation, effort.scatter)
    scores = _score(validation, effort)
    per_pass = effort.stretches * validation.maker.pools[0].per_stretch
    per_pass_length = per_pass * network.geometry.psd_refresh_length
    passes = math.ceil(effort.noise_length / per_pass_length)
    result["noise_length"] = passes * per_pass_length
    result |= _tables(scores, effort)
    result["roc"] = _roc(scores, effort)
    result["noises"] = [
        _other_noise(network, seed, noise, effort, result["thresholds"])
        for noise in noises
    ]
    settings = validation.settings
    result["optimal"] = optimal_curves(
        network.geometry,
        MASSES,
        RATES,
        np.arange(3.0, 20.5, 0.5),
        run=result["run"],
        window_length=settings.latest_merger - settings.earliest_merger,
        seed=seed,
        noise_windows=effort.optimum_windows,
        signals=effort.optimum_signals,
    )
    return result


def _other_noise(
    network: Scorer,
    seed: int,
    noise: OtherNoise,
    effort: Effort,
    held: Mapping[str, Mapping[str, float]],
) -> dict[str, Any]:
    """Judge a network in one further kind of noise."""
    share = OTHER_NOISE_SHARE
    effort = replace(
        effort,
        noise_length=effort.noise_length * share,
        signals=round(effort.signals * share),
        glitch_windows=round(effort.glitch_windows * share),
        snrs=SNRS,
    )
    scores = _score(Validation(network, seed, effort, noise), effort)
    tables = _tables(scores, effort)
    del tables["efficiency"]
    rates = {
        kind: {
            rate: scores.kinds[kind].rate(limit) for rate, limit in held[kind].items()
        }
        for kind in held
    }
    return {
        "name": noise.name,
        "signals": effort.signals,
        "glitch_windows": effort.glitch_windows,
        "held_rates": rates,
        **tables,
    }


def table(result: dict[str, Any]) -> str:
    """Lay out :func:`validate`'s figures as Markdown."""
    names = {"gaussian": "Gaussian noise", "glitches": "10 % with a glitch"}
    heads = [f"{names[name]}, {rate:g}" for name in names for rate in TABLE_RATES]
    lines = [
        "| Masses | SNR | " + " | ".join(heads) + " |",
        "|---|---|" + "---|" * len(heads),
    ]
    for clean, dirty in zip(
        result["found"]["gaussian"], result["found"]["glitches"], strict=True
    ):
        shares = [
            f"{100 * entry['found'][str(rate)]:.1f} %"
            if str(rate) in entry["found"]
            else NOT_MEASURED
            for entry in (clean, dirty)
            for rate in TABLE_RATES
        ]
        masses = f"{clean['mass_1']:g}, {clean['mass_2']:g}"
        lines.append(f"| {masses} | {clean['snr']:g} | " + " | ".join(shares) + " |")
    return "\n".join(lines) + "\n"


def noises_table(result: dict[str, Any]) -> str:
    """Lay out the further kinds of noise as Markdown, at SNR 8 and 1e-4."""
    rate, snr = "0.0001", 8.0
    pairs = [f"{mass_1:g}, {mass_2:g}" for mass_1, mass_2 in MASSES]
    lines = [
        "| Noise | false positives at the first noise's threshold | "
        + " | ".join(pairs)
        + " |",
        "|---|---|" + "---|" * len(pairs),
    ]
    first = {"name": f"{result['run']} curves", "held_rates": None} | result
    for noise in (first, *result["noises"]):
        for kind, words in (("gaussian", ""), ("glitches", ", 10 % with a glitch")):
            shares = [
                f"{100 * entry['found'][rate]:.1f} %"
                if rate in entry["found"]
                else NOT_MEASURED
                for entry in noise["found"][kind]
                if entry["snr"] == snr
            ]
            held = (noise["held_rates"] or {}).get(kind, {}).get(rate)
            false = "1e-4 by definition" if noise is first else NOT_MEASURED
            if held is not None:
                false = f"{held:.2g}"
            lines.append(
                f"| {noise['name']}{words} | {false} | " + " | ".join(shares) + " |"
            )
    return "\n".join(lines) + "\n"


def preamble(result: dict[str, Any]) -> str:
    """Say in Markdown what :func:`table` shows and how it was measured."""
    settings = WindowSettings()
    made = timed = ""
    if "command" in result.get("checkpoint", {}):
        details = result["checkpoint"]
        made = (
            f"Made by `{details['command']}` (seed {details['seed']}, "
            f"{details['steps']} steps) in {details['wall_time_length'] / 60:.1f} "
            "minutes on two cores.\n\n"
        )
    if result["timing"]:
        share = 100 * result["timing"]["peak_within_sixteenth"]
        timed = (
            f"\nThe merger's time is right to 1/16 s for {share:.1f} % of signals of "
            "SNR 10 to 20.\n"
        )
    low, high = wilson_interval(result["signals"] // 2, result["signals"])
    return (
        f"{made}Share of simulated mergers found in simulated {result['run']} noise, "
        f"in {result['signals']} single windows each (half of them found is known to "
        f"{50 * (high - low):.1f} %), with the merger at a random "
        f"place {settings.earliest_merger:g} to {settings.latest_merger:g} s "
        "after the start of the window; sky and orientation are isotropic. Thresholds "
        f"are for the stated false-positive rate a window, from "
        f"{result['noise_windows']:,} windows of {result['noise_length']:,.0f} s of "
        f"noise of each detector in {result['slides']} pairings, whitened with PSDs of "
        "8 to 64 s. In the last two columns a tenth of all windows, with and without a "
        "signal, has a glitch of SNR 4 to 100 in one detector.\n" + timed
    )


def write_report(path: str | Path, result: dict[str, Any]) -> None:
    """Write figures as JSON, and beside it a Markdown table.

    Args:
        path: The JSON file; the table has the suffix ``.md``.
        result: From :func:`validate`; with ``checkpoint``, what the checkpoint says
            about its making.
    """
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(result, indent=2) + "\n")
    path = Path(path)
    text = f"# {path.stem}\n\n{preamble(result)}\n{table(result)}"
    if result.get("noises"):
        text += f"\nShares found at SNR 8 and 1e-4 elsewhere:\n\n{noises_table(result)}"
    with replacing(path.with_suffix(".md")) as temporary:
        temporary.write_text(text)
