"""What a network finds: shares at false-positive rates, and when mergers were.

A signal counts as found if the score of one window, with the merger at a random place
in it as in training, exceeds the threshold; a running search looks at several windows
of each merger and finds more. Thresholds come from noise whitened as served, in blocks
that begin 8 s after a start; every score of the dense evaluation is one window.
"""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from chirpwatch.atomic import replacing
from train.network import Network
from train.windows import WindowMaker, WindowSettings

MASSES = ((35.0, 35.0), (35.0, 20.0), (20.0, 20.0), (20.0, 10.0))
SNRS = (6.0, 8.0, 10.0, 12.0)
RATES = (1e-3, 1e-4)
VALIDATION_SEED = 1000
GLITCH_SHARE = 0.1
SLIDES = 4
STRETCHES = 20
BATCH = 256


class Validation:
    """Draws windows of one observing run, and scores them.

    Args:
        network: What is judged; BatchNorm is folded.
        seed: Seed of all windows; another than in training.
        run: Observing run whose noise curves are used.
    """

    def __init__(self, network: Network, seed: int, run: str = "O3") -> None:
        self.network = network.fused()
        self.settings = replace(
            WindowSettings(), runs=(run,), stretches=STRETCHES, bank_size=512
        )
        self.maker = WindowMaker(network.geometry, self.settings, seed)
        torch.manual_seed(seed)

    def refresh(self) -> None:
        """Make all noise anew."""
        for pool in self.maker.pools:
            for _ in range(pool.stretches):
                pool.replace()

    @torch.inference_mode()
    def noise_scores(self, length: float) -> Tensor:
        """Score noise without signals.

        Args:
            length: Noise of each detector, s; each block of one detector meets
                :data:`SLIDES` blocks of the other.

        Returns:
            Scores, [windows].
        """
        geometry, pools = self.network.geometry, self.maker.pools
        per_pass = len(pools[0].blocks) * geometry.psd_refresh_length
        result = []
        for _ in range(math.ceil(length / per_pass)):
            self.refresh()
            strain = torch.stack([pool.blocks for pool in pools], 1)
            features = torch.cat(
                [self.network.features(x) for x in torch.split(strain, BATCH // 8)]
            )
            for slide in range(SLIDES):
                # Neighbours of one stretch would share its PSD's error.
                shift = slide * pools[0].per_stretch
                slid = features.clone()
                slid[:, 1:] = features[:, 1:].roll(shift, 0)
                result.append(self.network.head(slid)[0].flatten())
        return torch.cat(result)

    @torch.inference_mode()
    def window_scores(
        self, n: int, waveform: int | None, snr: float, glitches: bool
    ) -> Tensor:
        """Score single windows.

        Args:
            n: Windows wanted.
            waveform: Index into the bank, or None for no signal.
            snr: Network SNR of the signal.
            glitches: Whether each window has a glitch in one detector.

        Returns:
            Scores, [n].
        """
        result = []
        for start in range(0, n, BATCH):
            rows = self.maker.draw_rows(min(BATCH, n - start))
            windows = self.maker.noise(rows)
            if waveform is not None:
                bank = torch.full((len(rows),), waveform)
                snrs = torch.full((len(rows),), snr)
                windows += self.maker.signals(rows, snrs, bank)[0]
            if glitches:
                no_merger = torch.zeros(len(rows), dtype=torch.bool)
                series = self.maker.lone_disturbances(rows, no_merger)
                ifos = rows.shape[1]
                lone = torch.randint(ifos, (len(rows),))
                windows += series * torch.nn.functional.one_hot(lone, ifos)[..., None]
            result.append(self.network(windows).squeeze(1))
        return torch.cat(result)

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
        geometry, maker = self.network.geometry, self.maker
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
            result.append(mergers.min(1).values - frame.squeeze(1))
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
    limit = validation.network.geometry.sample_rate / 16
    low, high = torch.quantile(offsets, torch.tensor([0.05, 0.95])).tolist()
    return {
        "peak_offset_size": float(median),
        "peak_offset_p05": low,
        "peak_offset_p95": high,
        "peak_within_sixteenth": float(
            ((offsets - median).abs() < limit).float().mean()
        ),
    }


def validate(
    network: Network,
    seed: int = VALIDATION_SEED,
    noise_length: float = 100_000,
    signals: int = 2000,
    glitch_windows: int = 40_000,
) -> dict[str, Any]:
    """Measure shares found, with and without glitches, and the timing.

    Args:
        network: What is judged.
        seed: Seed of all windows.
        noise_length: Noise of each detector, s; rounded up to whole sets of stretches.
        signals: Windows for each pair of masses and SNR.
        glitch_windows: Noise windows with a glitch.

    Returns:
        JSON-ready figures: ``thresholds`` and ``found``, for ``gaussian`` noise and
        for ``glitches`` (a tenth of all windows, signals' too, has a glitch in one
        detector), and ``timing``.
    """
    validation = Validation(network, seed)
    timing = calibrate(validation, signals)
    noise = validation.noise_scores(noise_length)
    # What was drawn: whole sets of stretches, each block of which gives these windows.
    geometry = network.geometry
    per_block = round(geometry.psd_refresh_length - geometry.kernel_length)
    per_block = round(per_block * geometry.inference_sampling_rate) + 1
    blocks = len(noise) / (SLIDES * per_block)
    glitch = validation.window_scores(glitch_windows, None, 0, glitches=True)
    validation.maker.set_bank(torch.tensor(MASSES), torch.zeros(len(MASSES), 2))
    thresholds = {
        "gaussian": {
            str(rate): mixture_threshold(noise, glitch, 0, rate) for rate in RATES
        },
        "glitches": {
            str(rate): mixture_threshold(noise, glitch, GLITCH_SHARE, rate)
            for rate in RATES
        },
    }
    found: dict[str, list[dict[str, Any]]] = {"gaussian": [], "glitches": []}
    for index, (mass_1, mass_2) in enumerate(MASSES):
        for snr in SNRS:
            clean = validation.window_scores(signals, index, snr, glitches=False)
            dirty = validation.window_scores(
                round(signals * GLITCH_SHARE), index, snr, glitches=True
            )
            mixed = torch.cat([clean[: signals - len(dirty)], dirty])
            for name, scores in (("gaussian", clean), ("glitches", mixed)):
                shares = {
                    rate: float((scores > limit).float().mean())
                    for rate, limit in thresholds[name].items()
                }
                found[name].append(
                    {"mass_1": mass_1, "mass_2": mass_2, "snr": snr, "found": shares}
                )
    return {
        "run": "O3",
        "simulated": True,
        "seed": seed,
        "noise_windows": len(noise),
        "noise_length": blocks * geometry.psd_refresh_length,
        "slides": SLIDES,
        "signals": signals,
        "glitch_windows": glitch_windows,
        "thresholds": thresholds,
        "found": found,
        "timing": timing,
    }


def mixture_threshold(
    noise: Tensor, glitch: Tensor, share: float, rate: float
) -> float:
    """Score that a false-positive rate belongs to.

    Args:
        noise: Scores of windows without a glitch, [n].
        glitch: Scores of windows with one, [m].
        share: Share of the windows that have a glitch.
        rate: Share of all windows that may exceed the threshold.

    Returns:
        The smallest score that no more than ``rate`` of the mixture exceed.
    """
    scores = torch.cat([noise, glitch])
    clean = torch.full((len(noise),), (1 - share) / len(noise), dtype=torch.float64)
    dirty = torch.full((len(glitch),), share / len(glitch), dtype=torch.float64)
    order = scores.argsort(descending=True)
    shares = torch.cat([clean, dirty])[order].cumsum(0)
    return float(scores[order[int((shares > rate).int().argmax())]])


def table(result: dict[str, Any]) -> str:
    """Lay out :func:`validate`'s figures as Markdown."""
    names = {"gaussian": "Gaussian noise", "glitches": "10 % with a glitch"}
    heads = [f"{names[name]}, {rate:g}" for name in names for rate in RATES]
    lines = [
        "| Masses | SNR | " + " | ".join(heads) + " |",
        "|---|---|" + "---|" * len(heads),
    ]
    for clean, dirty in zip(
        result["found"]["gaussian"], result["found"]["glitches"], strict=True
    ):
        shares = [
            f"{100 * entry['found'][str(rate)]:.1f} %"
            for entry in (clean, dirty)
            for rate in RATES
        ]
        masses = f"{clean['mass_1']:g}, {clean['mass_2']:g}"
        lines.append(f"| {masses} | {clean['snr']:g} | " + " | ".join(shares) + " |")
    return "\n".join(lines) + "\n"


def preamble(result: dict[str, Any]) -> str:
    """Say in Markdown what :func:`table` shows and how it was measured."""
    settings, timing = WindowSettings(), result["timing"]
    made = ""
    if "checkpoint" in result:
        details = result["checkpoint"]
        made = (
            f"Made by `{details['command']}` (seed {details['seed']}, "
            f"{details['steps']} steps) in {details['wall_time_length'] / 60:.1f} "
            "minutes on two cores.\n\n"
        )
    return (
        f"{made}Share of simulated mergers found in simulated {result['run']} noise, "
        f"in {result['signals']} single windows each, with the merger at a random "
        f"place {settings.earliest_merger:g} to {settings.latest_merger:g} s "
        "after the start of the window; sky and orientation are isotropic. Thresholds "
        f"are for the stated false-positive rate a window, from "
        f"{result['noise_windows']:,} windows of {result['noise_length']:,.0f} s of "
        f"noise of each detector in {result['slides']} pairings, whitened with PSDs of "
        "8 to 64 s. In the last two columns a tenth of all windows, with and without a "
        "signal, has a glitch of SNR 4 to 100 in one detector.\n\n"
        f"The merger's time is right to 1/16 s for "
        f"{100 * timing['peak_within_sixteenth']:.1f} % of signals of SNR 10 to 20.\n"
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
    with replacing(path.with_suffix(".md")) as temporary:
        temporary.write_text(f"# {path.stem}\n\n{preamble(result)}\n{table(result)}")
