"""The parity report: compares the exported models with PyTorch, SciPy and gwpy."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime
from gwpy.frequencyseries import FrequencySeries
from gwpy.timeseries import TimeSeries
from numpy.typing import NDArray

from chirpwatch.errors import ModelError
from chirpwatch.export import reference
from chirpwatch.export.layout import SCALE
from chirpwatch.geometry import Geometry
from chirpwatch.train.networks.models import Sliding

LIMITS = {
    "whitening_against_float64": 5e-4,
    "score_against_torch": 1e-3,
    "psd_against_gwpy": 1e-4,
    "whitening_against_gwpy_decorrelation": 0.01,
    "whitening_against_gwpy_std": 0.02,
}
"""Largest allowed value of each figure in ``Parity``."""


@dataclass(frozen=True)
class Chain:
    """The exported models' outputs for gap-free strain.

    Attributes:
        whitened: Whitened strain, unit variance in noise, [rows, ifos, size].
        start: Index of the first whitened sample in the strain.
        psds: One-sided PSDs, strain²/Hz, [ifos, bins], by the sample at which they fell
            due.
        score: Scores, logits, [rows, strides].
        delay: Delays, s, [rows, strides].
        valid: Whether the scores are valid, bool [strides].
    """

    whitened: NDArray[Any]
    start: int
    psds: dict[int, NDArray[Any]]
    score: NDArray[Any]
    delay: NDArray[Any]
    valid: NDArray[Any]


def run_chain(
    models: Mapping[str, onnx.ModelProto],
    geometry: Geometry,
    strain: NDArray[Any],
    request_size: int,
) -> Chain:
    """Run the models of ``detector`` in ONNX Runtime, request by request.

    Args:
        models: The exported models by name.
        geometry: The analysis.
        strain: Strain, [rows, ifos, size].
        request_size: Samples in each request, a multiple of the stride.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    sessions = {
        name: onnxruntime.InferenceSession(model.SerializeToString(), options)
        for name, model in models.items()
    }
    overlap = geometry.kernel_size - geometry.stride_size
    state = np.zeros(1, np.float32)
    pieces: dict[str, list[NDArray[Any]]] = {
        name: [] for name in ("whitened", "score", "delay", "valid")
    }
    psds = {}
    usable = strain.shape[-1] // geometry.stride_size * geometry.stride_size
    for begin in range(0, usable, request_size):
        piece = strain[..., begin : min(begin + request_size, usable)]
        position = np.full(len(geometry.ifos), begin)
        snapshot, filters, psd, whole, state = sessions["snapshotter"].run(
            ["snapshot", "filters", "psd", "whole", "new_state"],
            {"strain": piece.astype(np.float32), "position": position, "state": state},
        )
        whitened, frames = sessions["preprocessor"].run(
            ["whitened", "usable"],
            {"snapshot": snapshot, "filters": filters, "position": position},
        )
        (features,) = sessions["frontend"].run(None, {"whitened": whitened})
        score, delay, valid = sessions["head"].run(
            ["score", "delay", "valid"],
            {"features": features, "usable": frames, "whole": whole},
        )
        first = begin // geometry.psd_refresh_size + 1
        for k, new in enumerate(psd):
            psds[(first + k) * geometry.psd_refresh_size] = new / SCALE**2
        # Drop the overlap: earlier requests' samples; before the first, zeros.
        pieces["whitened"].append(whitened[..., overlap:])
        pieces["score"].append(score)
        pieces["delay"].append(delay)
        pieces["valid"].append(valid)
    joined = {name: np.concatenate(parts, -1) for name, parts in pieces.items()}
    return Chain(start=-geometry.filter_size // 2, psds=psds, **joined)


def gwpy_whiten(
    series: TimeSeries, asd: FrequencySeries, geometry: Geometry, span: slice
) -> NDArray[Any]:
    """Whiten strain with gwpy, which designs its filter differently, in short pieces.

    gwpy interpolates the ASD to the frequency resolution of the series, which broadens
    lines. It also tapers half a filter length at either end, which corrupts a whole
    filter length. So each piece is as long as a periodogram, for which the ASD needs no
    interpolation, and only an eighth of a second in its middle is used.

    Args:
        series: The strain; it must extend half a periodogram beyond ``span``.
        asd: Its amplitude spectral density.
        geometry: The analysis.
        span: Samples to return, a whole number of eighths of a second.

    Returns:
        Whitened samples, [span.stop - span.start].
    """
    part = geometry.sample_rate // 8
    margin = (geometry.fft_size - part) // 2
    pieces = []
    for begin in range(span.start, span.stop, part):
        piece = series[begin - margin : begin - margin + geometry.fft_size]
        white = piece.whiten(
            asd=asd, fduration=geometry.fduration, highpass=geometry.highpass
        )
        pieces.append(white.value[margin : margin + part])
    return np.concatenate(pieces)


@dataclass(frozen=True)
class Parity:
    """Differences between the exported models and independent calculations.

    Attributes:
        whitening_against_float64: Largest difference from the same filter in float64,
            in standard deviations.
        score_against_torch: Largest difference of a valid score, a logit, from the
            reference in float64 and PyTorch.
        psd_against_gwpy: Largest relative difference from gwpy's median PSD, above
            the highpass.
        whitening_against_gwpy_decorrelation: 1 minus the correlation with the output of
            gwpy's ``whiten``, which designs its filter differently.
        whitening_against_gwpy_std: Relative difference in standard deviation from the
            output of gwpy's ``whiten``.
    """

    whitening_against_float64: float
    score_against_torch: float
    psd_against_gwpy: float
    whitening_against_gwpy_decorrelation: float
    whitening_against_gwpy_std: float

    def to_json(self) -> str:
        """Return the figures and their limits as JSON."""
        return json.dumps({"measured": asdict(self), "limits": LIMITS}, indent=2) + "\n"


def measure(
    models: Mapping[str, onnx.ModelProto],
    geometry: Geometry,
    network: Sliding,
    strain: NDArray[Any],
) -> Parity:
    """Compare exported models with independent calculations on the same strain.

    Args:
        models: The exported models by name.
        geometry: The analysis.
        network: The network that they were exported from.
        strain: Noise, [1, ifos, size], at least ``psd_length`` and two refreshes long.

    Raises:
        ModelError: A figure exceeds its limit.
    """
    refresh, half = geometry.psd_refresh_size, geometry.filter_size // 2
    request = round(7 * geometry.inference_sampling_rate) * geometry.stride_size
    chain = run_chain(models, geometry, strain, request)
    expected = reference.whiten(strain.astype(np.float32), geometry)
    scores, _, valid = reference.score(strain.astype(np.float32), geometry, network)

    # Whitened samples are compared from the first PSD on; before it, no score is valid.
    size = strain.shape[-1] // geometry.stride_size * geometry.stride_size
    begin, end = refresh, size - half
    ours = chain.whitened[..., begin - chain.start : end - chain.start]
    theirs = expected.strain[..., begin - expected.start : end - expected.start]

    # The last PSD in use for a whole refresh within the stretch, with strain after it.
    due = sorted(chain.psds)[-2]
    used = slice(max(0, due - geometry.psd_size), due)
    last = slice(due, min(end, due + refresh - half))
    band = slice(round(geometry.highpass * geometry.fftlength), -1)
    psd_errors, decorrelations, ratios = [], [], []
    for i in range(len(geometry.ifos)):
        series = TimeSeries(strain[0, i], sample_rate=geometry.sample_rate)
        psd = series[used].psd(
            geometry.fftlength, geometry.fftlength / 2, method="median"
        )
        ratio = chain.psds[due][i, band] / psd.value[band]
        psd_errors.append(np.abs(ratio - 1).max())
        white = gwpy_whiten(series, psd**0.5, geometry, last)
        # gwpy does not correct for the variance from the PSD's own statistical error.
        white /= reference.whitened_variance(used.stop - used.start, geometry) ** 0.5
        mine = chain.whitened[0, i, last.start - chain.start : last.stop - chain.start]
        decorrelations.append(1 - np.corrcoef(white, mine)[0, 1])
        ratios.append(abs(mine.std() / white.std() - 1))

    parity = Parity(
        whitening_against_float64=float(np.abs(ours - theirs).max() / theirs.std()),
        score_against_torch=float(np.abs(chain.score - scores)[:, valid].max()),
        psd_against_gwpy=float(max(psd_errors)),
        whitening_against_gwpy_decorrelation=float(max(decorrelations)),
        whitening_against_gwpy_std=float(max(ratios)),
    )
    for name, limit in LIMITS.items():
        if not getattr(parity, name) <= limit:
            raise ModelError(
                f"the exported models differ from the reference: {name} is "
                f"{getattr(parity, name):.3g}, expected at most {limit:g}; nothing was "
                "written"
            )
    return parity
