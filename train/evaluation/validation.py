"""Validation of a network on single windows, drawn as in training.

A merger is found if the score of its window exceeds the threshold. Each merger has one
window, and a random time in it, as in training. A search scores several windows for
each merger, and finds more (``train.evaluation.deployment``). The noise is whitened as
on the server, in blocks that start 8 s or more after a sequence's start. A network that
scores continuous strain contributes one window per stride.
"""

import hashlib
import math
import pickle
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from chirpwatch.errors import ConfigurationError
from chirpwatch.process import process_pool
from chirpwatch.train.data.recorded import RecordedStretches
from chirpwatch.train.data.window_settings import WindowSettings
from chirpwatch.train.data.windows import WindowMaker
from chirpwatch.train.evaluation.effort import (
    FULL,
    SNRS,
    Effort,
    effort_of,
    max_slides,
)
from chirpwatch.train.evaluation.heldout import OtherNoise
from chirpwatch.train.evaluation.optimal import optimal_curves
from chirpwatch.train.evaluation.scoring import (
    channels_last,
    device_of,
    has_slides,
    score_windows,
)
from chirpwatch.train.evaluation.thresholds import (
    MASSES,
    RATES,
    FalsePositives,
    WindowScores,
    roc_curves,
    shares_found,
)
from chirpwatch.train.networks.baseline import SeedResNet
from chirpwatch.train.networks.models import Scorer

RUN = "O3"
"""Observing run of the first noise's curves."""

VALIDATION_SEED = 1000
GLITCH_SHARE = 0.1
"""Share of windows with a glitch in the kind ``glitches``."""

BATCH = 256
SCATTER_SNRS = (4.0, 60.0)
CALIBRATION_BINS = 10
OTHER_NOISE_SHARE = 0.25
"""Amount of each further kind of noise and its signals, relative to the first's."""

REPORTED_SETTINGS = (
    "min_mass",
    "max_mass",
    "last_snr",
    "max_snr",
    "earliest_merger",
    "latest_merger",
    "min_glitch_snr",
    "max_disturbance_snr",
)
"""Fields of ``WindowSettings`` that the results include."""


def weights_hash(network: Scorer) -> str:
    """SHA-256 of a network's weights: names, types, shapes and values."""
    digest = hashlib.sha256()
    for name, weight in sorted(network.state_dict().items()):
        digest.update(f"{name} {weight.dtype} {list(weight.shape)}\n".encode())
        digest.update(weight.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def recorded_parts(noise: OtherNoise) -> list[str]:
    """List which parts of a noise are recorded data: ``strain``, ``glitches``."""
    sources = (noise.sources or {}).values()
    parts = []
    if any(isinstance(x, RecordedStretches) and not x.simulated for x in sources):
        parts.append("strain")
    if noise.glitches is not None:
        parts.append("glitches")
    return parts


class Validation:
    """Draws windows of one kind of noise, and scores them with a network.

    Args:
        network: Network to validate; it is not changed.
        seed: Seed of all windows; must differ from the training's.
        effort: Numbers of stretches, waveforms and glitches in memory.
        noise: Kind of noise; that of the O3 noise curves if None.
    """

    def __init__(
        self,
        network: Scorer,
        seed: int,
        effort: Effort = FULL,
        noise: OtherNoise | None = None,
    ) -> None:
        noise = noise or OtherNoise(f"{RUN} curves", run=RUN)
        torch.manual_seed(seed)
        self.network: Any = network.fused()
        self.geometry = network.geometry
        self.recorded = noise.glitches
        self.settings = replace(
            WindowSettings(),
            runs=(noise.run,),
            stretches=effort.stretches,
            bank_size=effort.bank_size,
            glitch_bank_size=effort.glitch_bank_size,
        )
        if noise.glitch_weights is not None:
            self.settings = replace(self.settings, glitch_weights=noise.glitch_weights)
        self.maker = WindowMaker(
            network.geometry, self.settings, seed, noise.sources, device_of(network)
        )

    def refresh(self) -> None:
        """Draw new noise for all detectors."""
        for pool in self.maker.pools:
            pool.seek(pool.turn)

    @torch.inference_mode()
    def noise_scores(self, length: float, slides: int) -> Tensor:
        """Score noise without signals, in timeslides.

        Args:
            length: Noise of each detector, s.
            slides: Number of timeslides, the unshifted noise among them.

        Returns:
            Scores, [rows, strides]. A row is one noise block at successive strides, or
            a single window for a network that scores one window at a time.
        """
        pools = self.maker.pools
        per_pass = len(pools[0].blocks) * self.geometry.psd_refresh_length
        result = []
        for number in range(math.ceil(length / per_pass)):
            if number:
                self.refresh()
            strain = torch.stack([pool.blocks for pool in pools], 1)
            # Shift by entire stretches: blocks of a stretch share its PSD's error.
            shifts = [slide * pools[0].per_stretch for slide in range(slides)]
            if has_slides(self.network):
                result += self._slides(strain, shifts)
                continue
            for shift in shifts:
                slid = slide_blocks(strain, shift)
                result += [self._plain(x) for x in torch.split(slid, BATCH // 8)]
        return torch.cat(result).cpu()

    def _slides(self, strain: Tensor, shifts: Sequence[int]) -> list[Tensor]:
        """Score blocks in timeslides through a single-detector frontend.

        Args:
            strain: Whitened blocks, [blocks, ifos, time].
            shifts: Shift of each slide, blocks.
        """
        features = torch.cat(
            [self.network.features(x) for x in torch.split(strain, BATCH // 8)]
        )
        result = []
        for shift in shifts:
            result += [
                self.network.head.forward_sum(channels_last(x))[0]
                for x in torch.split(slide_blocks(features, shift).sum(1), 8)
            ]
        return result

    def _plain(self, blocks: Tensor) -> Tensor:
        """Score blocks, [n, ifos, time], without a single-detector frontend.

        Returns:
            Scores by stride, [n, strides]; of a network that scores one window at a
            time, scores of adjacent kernels, [n * kernels, 1].
        """
        if isinstance(self.network, SeedResNet):
            size = self.geometry.kernel_size
            windows = blocks.unfold(-1, size, size).transpose(1, 2).flatten(0, 1)
            return score_windows(self.network, windows)[:, None]
        scores: Tensor = self.network(blocks).float()
        return scores

    @torch.inference_mode()
    def window_scores(self, bank: Tensor, snrs: Tensor, glitches: Tensor) -> Tensor:
        """Score single windows with a merger.

        Args:
            bank: Index of each merger's waveform in the maker's bank, [n].
            snrs: Network SNR of each merger, [n].
            glitches: Index of a glitch that the window has in one detector, -1 for no
                glitch, [n]. See ``draw_glitches``.

        Returns:
            Scores, [n].
        """
        result, maker = [], self.maker
        for start in range(0, len(glitches), BATCH):
            chosen = slice(start, start + BATCH)
            windows, rows = self._noise_windows(glitches[chosen])
            windows = windows + maker.signals(rows, snrs[chosen], bank[chosen])[0]
            result.append(score_windows(self.network, windows))
        return torch.cat(result).cpu()

    @torch.inference_mode()
    def glitch_scores(self, glitches: Tensor) -> Tensor:
        """Score single windows without a merger.

        Args:
            glitches: Index of each window's glitch, see ``draw_glitches``, [n].

        Returns:
            Scores, [n].
        """
        result = [
            score_windows(self.network, self._noise_windows(chosen)[0])
            for chosen in torch.split(glitches, BATCH)
        ]
        return torch.cat(result).cpu()

    def draw_glitches(self, n: int) -> Tensor:
        """Draw a glitch's index for each of ``n`` windows, [n]; all equally often."""
        kinds = len(self.maker.glitches if self.recorded is None else self.recorded)
        return torch.arange(n)[torch.randperm(n)] % kinds

    def _noise_windows(self, glitches: Tensor) -> tuple[Tensor, Tensor]:
        """Draw noise windows, with a glitch where ``glitches`` is not -1.

        Returns:
            Windows, [n, ifos, kernel_size], and the blocks they are cut from,
            [n, ifos].
        """
        rows = self.maker.draw_rows(len(glitches))
        windows = self.maker.noise(rows)
        chosen = torch.nonzero(glitches >= 0).flatten()
        if len(chosen):
            windows[chosen] = self._disturb(
                windows[chosen], rows[chosen], glitches[chosen]
            )
        return windows, rows

    def _disturb(self, windows: Tensor, rows: Tensor, glitches: Tensor) -> Tensor:
        """Put a glitch into a random detector of each window, at a random time."""
        n, ifos = rows.shape
        lone = torch.nn.functional.one_hot(torch.randint(ifos, (n,)), ifos)[..., None]
        lone = lone.to(windows.device)
        if self.recorded is None:
            no_merger = torch.zeros(n, dtype=torch.bool)
            shapes = glitches[:, None].expand(n, ifos)
            series = self.maker.lone_disturbances(rows, no_merger, shapes)
            return windows + series * lone
        size = windows.shape[-1]
        pieces = self.recorded.unfold(-1, size, 1)
        recorded = pieces[glitches, torch.randint(1, size, (n,))]
        # Recorded glitches include their noise, and so replace the window's.
        return torch.where(lone > 0, recorded[:, None].to(windows.device), windows)

    @torch.inference_mode()
    def peak_offsets(self, n: int, snr: float) -> Tensor:
        """Measure the offset of mergers from the frame that the network points to.

        Args:
            n: Number of mergers, with masses as in training.
            snr: Their network SNR.

        Returns:
            Samples from the start of the loudest kernel's peak frame to the merger in
            the detector that it reaches first, [n].
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


def slide_blocks(blocks: Tensor, shift: int) -> Tensor:
    """Shift each detector's blocks circularly against those of the one before it.

    Args:
        blocks: [blocks, ifos, ...].
        shift: Shift in blocks.
    """
    moved = [blocks[:, i].roll(i * shift, 0) for i in range(blocks.shape[1])]
    return torch.stack(moved, 1)


def calibrate(validation: Validation, n: int) -> dict[str, float]:
    """Calibrate the merger's time: its offset from the network's peak frame.

    Args:
        validation: Validation of the network.
        n: Mergers at each of the SNRs 10, 14 and 20.

    Returns:
        ``peak_offset_size``, the median offset, samples; ``peak_offset_p05`` and
        ``peak_offset_p95``, its 5 % and 95 % quantiles, samples;
        ``peak_within_sixteenth``, the share of mergers within 1/16 s of the median.
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
    """Measure the score's calibration: its sigmoid against the share of signals.

    Args:
        validation: Validation of the network, not used before.
        batches: Number of batches, drawn as at the end of the training.

    Returns:
        JSON-ready: ``bins`` of the sigmoid, each with ``predicted`` (its mean),
        ``share`` (of windows with a signal) and ``windows``; ``prior``, the share over
        all bins; ``windows``; and ``error``, the expected calibration error: the mean
        of ``|predicted - share|`` over windows.
    """
    scores, labels = [], []
    for index in range(batches):
        windows, label, *_ = validation.maker.batch(index, validation.settings.last_snr)
        scores.append(score_windows(validation.network, windows).cpu())
        labels.append(label.cpu())
    predicted, label = torch.cat(scores).double().sigmoid(), torch.cat(labels).double()
    indices = (predicted * CALIBRATION_BINS).long().clamp(max=CALIBRATION_BINS - 1)
    bins = []
    for index in range(CALIBRATION_BINS):
        inside = indices == index
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
    """Score mergers with log-uniform masses and SNR.

    This replaces the validation's bank of waveforms.

    Args:
        validation: Validation of the network.
        n: Number of mergers.

    Returns:
        Columns, [n]: ``snr``, ``mass_1`` and ``mass_2`` (solar masses), ``score``.
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
    clean = torch.full((n,), -1)
    columns = {
        "snr": snrs,
        "mass_1": masses[bank, 0],
        "mass_2": masses[bank, 1],
        "score": validation.window_scores(bank, snrs, clean),
    }
    return {
        name: [round(x, 3) for x in column.tolist()] for name, column in columns.items()
    }


def _score(validation: Validation, effort: Effort) -> WindowScores:
    """Score noise and the reference mergers; replaces the bank of waveforms."""
    noise = validation.noise_scores(effort.noise_length, effort.slides)
    shapes = validation.draw_glitches(effort.glitch_windows)
    glitch = validation.glitch_scores(shapes)
    validation.maker.set_bank(torch.tensor(MASSES), torch.zeros(len(MASSES), 2))
    signals = {}
    n, dirty = effort.signals, round(effort.signals * GLITCH_SHARE)
    glitches = torch.cat([torch.full((n,), -1), validation.draw_glitches(dirty)])
    for index in range(len(MASSES)):
        for snr in effort.snrs:
            scores = validation.window_scores(
                torch.full((n + dirty,), index),
                torch.full((n + dirty,), snr),
                glitches,
            )
            signals[index, snr, "gaussian"] = scores[:n]
            # Windows with a glitch replace a tenth of those without.
            signals[index, snr, "glitches"] = scores[dirty:]
    strides = validation.geometry.kernel_size // validation.geometry.stride_size
    kinds = {
        "gaussian": FalsePositives(noise, glitch, 0, strides, shapes),
        "glitches": FalsePositives(noise, glitch, GLITCH_SHARE, strides, shapes),
    }
    return WindowScores(kinds, signals, noise.numel())


def validate(
    network: Scorer,
    seed: int = VALIDATION_SEED,
    *,
    quick: bool = False,
    noises: Sequence[OtherNoise] = (),
    processes: int = 1,
    **sizes: Any,
) -> dict[str, Any]:
    """Validate a network: efficiencies, ROC, calibration, and all else in the report.

    Args:
        network: Network to validate.
        seed: Seed of all windows.
        quick: Draw less, see ``effort_of``.
        noises: Further kinds of noise.
        processes: Number of processes, this one included. Further processes score the
            further kinds of noise. The results don't depend on it.
        **sizes: Fields of ``Effort`` to override.

    Returns:
        JSON-ready results. ``gaussian`` stands for Gaussian noise; ``glitches`` for the
        same with a glitch in one detector in a tenth of all windows, those with signals
        included.

        - ``thresholds``: by kind and false-positive rate, for those of ``RATES`` with
          enough noise; ``clusters``: effective number of clusters above each.
        - ``found``: by kind, for each pair of masses and SNR the efficiency by rate
          (``found``), and with n - √n (``found_low``) and n + √n (``found_high``)
          clusters above the threshold in place of n. ``efficiency``: the same at more
          SNRs.
        - ``roc``, ``scatter``, ``calibration``: see ``roc_curves``, ``scatter`` and
          ``reliability``.
        - ``optimal``: see ``optimal_curves``.
        - ``noises``: for each further kind of noise its thresholds and efficiencies,
          its false-positive rate at the first noise's thresholds (``held_rates``), and
          which parts are ``recorded``.
        - ``timing``: see ``calibrate``; empty if the network estimates no time.
        - ``weights`` (see ``weights_hash``), ``quick``, ``seed``, ``run``,
          ``settings``, the amounts drawn, and ``simulated``, whether all noise and
          glitches are simulated.

    Raises:
        ConfigurationError: More slides are asked for than the stretches allow.
    """
    effort = replace(effort_of(network, quick), **sizes)
    ifos = len(network.geometry.ifos)
    most = max_slides(effort.stretches, ifos)
    if effort.slides > most:
        raise ConfigurationError(
            f"validation: expected at most {most} slides of {effort.stretches} noise "
            f"stretches of {ifos} detector(s), found {effort.slides}, which would "
            "repeat pairings; use fewer slides or more stretches"
        )
    other_effort = _other_effort(effort)
    with _scores_of_others(
        network, seed, other_effort, noises, processes - 1
    ) as others:
        validation = Validation(network, seed, effort)
        result: dict[str, Any] = {
            "run": RUN,
            "weights": weights_hash(network),
            "simulated": not any(recorded_parts(noise) for noise in noises),
            "quick": quick,
            "seed": seed,
            "settings": _reported_settings(validation),
            "slides": effort.slides,
            "signals": effort.signals,
            "glitch_windows": effort.glitch_windows,
            # First, since it needs the noise and waveforms as in training.
            "calibration": reliability(validation, effort.batches),
        }
        timed = has_slides(network)
        result["timing"] = calibrate(validation, effort.signals) if timed else {}
        result["scatter"] = scatter(validation, effort.scatter)
        scores = _score(validation, effort)
        result["noise_length"] = _whole_passes(validation, effort)
        result |= shares_found(scores, effort)
        result["roc"] = roc_curves(scores, effort)
        result["noises"] = [
            _other_noise(noise, other_effort, drawn, result["thresholds"])
            for noise, drawn in zip(noises, others, strict=True)
        ]
        result["optimal"] = _optimal(validation, effort, seed)
    return result


def _reported_settings(validation: Validation) -> dict[str, Any]:
    """Window and PSD settings that the results include."""
    return {
        **{name: getattr(validation.settings, name) for name in REPORTED_SETTINGS},
        "psd_min_length": validation.geometry.psd_min_length,
        "psd_length": validation.geometry.psd_length,
    }


def _whole_passes(validation: Validation, effort: Effort) -> float:
    """Length of each detector's noise, rounded up to complete sets of stretches, s."""
    per_pass = effort.stretches * validation.maker.pools[0].per_stretch
    per_pass_length = per_pass * validation.geometry.psd_refresh_length
    return math.ceil(effort.noise_length / per_pass_length) * per_pass_length


def _optimal(validation: Validation, effort: Effort, seed: int) -> dict[str, Any]:
    """Matched-filter limits for the reference mergers, see ``optimal_curves``."""
    settings = validation.settings
    return optimal_curves(
        validation.geometry,
        MASSES,
        RATES,
        run=RUN,
        window_length=settings.earliest_merger - settings.latest_merger,
        seed=seed,
        noise_windows=effort.optimum_windows,
        signals=effort.optimum_signals,
        bank_windows=effort.bank_windows,
        bank_signals=effort.bank_signals,
    )


def _other_effort(effort: Effort) -> Effort:
    """Sizes for a further kind of noise."""
    share = OTHER_NOISE_SHARE
    return replace(
        effort,
        noise_length=effort.noise_length * share,
        signals=round(effort.signals * share),
        glitch_windows=round(effort.glitch_windows * share),
        snrs=SNRS,
    )


def _score_other(task: bytes) -> bytes:
    """Score one further kind of noise in a separate process.

    Task and result are pickled bytes, since tensors would be sent through shared
    memory, of which containers have little.
    """
    torch.set_num_threads(1)
    network, seed, effort, noise = pickle.loads(task)  # noqa: S301 (our own)
    return pickle.dumps(_score(Validation(network, seed, effort, noise), effort))


@contextmanager
def _scores_of_others(
    network: Scorer,
    seed: int,
    effort: Effort,
    noises: Sequence[OtherNoise],
    processes: int,
) -> Iterator[Iterator[WindowScores]]:
    """Score further kinds of noise, in background processes or when iterated.

    Args:
        network: Network to validate.
        seed: Seed of all windows.
        effort: Sizes for each kind of noise.
        noises: Further kinds of noise.
        processes: Number of background processes; 0 scores each kind when it is
            iterated.
    """
    if not (processes and noises):
        yield (
            _score(Validation(network, seed, effort, noise), effort) for noise in noises
        )
        return
    tasks = [pickle.dumps((network, seed, effort, noise)) for noise in noises]
    pool = process_pool(processes)
    try:
        yield map(pickle.loads, pool.map(_score_other, tasks))
    finally:
        pool.shutdown(cancel_futures=True)


def _other_noise(
    noise: OtherNoise,
    effort: Effort,
    scores: WindowScores,
    held: Mapping[str, Mapping[str, float]],
) -> dict[str, Any]:
    """Results for one further kind of noise, JSON-ready.

    Args:
        noise: Kind of noise.
        effort: Its sizes.
        scores: Its scores.
        held: Thresholds of the first noise, by kind and rate.
    """
    tables = shares_found(scores, effort)
    del tables["efficiency"]
    rates = {
        kind: {
            rate: scores.kinds[kind].rate(limit) for rate, limit in held[kind].items()
        }
        for kind in held
    }
    return {
        "name": noise.name,
        "recorded": recorded_parts(noise),
        "signals": effort.signals,
        "glitch_windows": effort.glitch_windows,
        "held_rates": rates,
        **tables,
    }
