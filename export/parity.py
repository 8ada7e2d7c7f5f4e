"""The parity report: the exported models against PyTorch, SciPy and gwpy."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
import onnx
import onnxruntime
from gwpy.frequencyseries import FrequencySeries
from gwpy.timeseries import TimeSeries

from chirpwatch.errors import ModelError
from chirpwatch.geometry import Geometry
from export import reference
from export.layout import SCALE
from train.network import Network

LIMITS = {
    "whitening_against_float64": 5e-4,
    "score_against_torch": 1e-3,
    "psd_against_gwpy": 1e-4,
    "whitening_against_gwpy_decorrelation": 0.01,
    "whitening_against_gwpy_std": 0.02,
}
"""Largest values that an export may have."""


@dataclass(frozen=True)
class Chain:
    """What the exported models make of a stretch.

    Attributes:
        whitened: [rows, ifos, size], from sample ``start`` of the stretch on.
        start: Sample of the stretch.
        psds: One-sided PSDs, strain²/Hz, [ifos, bins] by the sample at which they fell
            due.
        score: [rows, strides].
        delay: [rows, strides], s.
        valid: [strides].
    """

    whitened: np.ndarray
    start: int
    psds: dict[int, np.ndarray]
    score: np.ndarray
    delay: np.ndarray
    valid: np.ndarray


def run_chain(
    models: Mapping[str, onnx.ModelProto],
    geometry: Geometry,
    strain: np.ndarray,
    request_size: int,
) -> Chain:
    """Run the models in ONNX Runtime as the server runs them.

    Args:
        models: The exported models by name.
        geometry: The analysis.
        strain: [rows, ifos, size].
        request_size: Samples in one request, a multiple of the stride.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    sessions = {
        name: onnxruntime.InferenceSession(model.SerializeToString(), options)
        for name, model in models.items()
    }
    overlap = geometry.kernel_size - geometry.stride_size
    state = np.zeros(1, np.float32)
    pieces: dict[str, list[np.ndarray]] = {
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
        # Samples before the first request would be whitened zeros.
        pieces["whitened"].append(whitened[..., overlap:])
        pieces["score"].append(score)
        pieces["delay"].append(delay)
        pieces["valid"].append(valid)
    joined = {name: np.concatenate(parts, -1) for name, parts in pieces.items()}
    return Chain(start=-geometry.filter_size // 2, psds=psds, **joined)


def gwpy_whiten(
    series: TimeSeries, asd: FrequencySeries, geometry: Geometry, wanted: slice
) -> np.ndarray:
    """Whiten with gwpy, which designs its filter differently, in short pieces.

    gwpy interpolates the ASD to the resolution of what it whitens, which broadens
    lines; and it tapers the ends of what it whitens by half a filter, which spoils a
    whole one. So each piece is as long as a periodogram, at which the ASD stays as it
    is, and only an eighth of a second in its middle is used.

    Args:
        series: The strain; it must reach half a periodogram beyond what is wanted.
        asd: Its amplitude spectral density.
        geometry: The analysis.
        wanted: Samples wanted, a whole number of eighths of a second.

    Returns:
        Whitened samples, [wanted.stop - wanted.start].
    """
    part = geometry.sample_rate // 8
    margin = (geometry.fft_size - part) // 2
    pieces = []
    for begin in range(wanted.start, wanted.stop, part):
        piece = series[begin - margin : begin - margin + geometry.fft_size]
        white = piece.whiten(
            asd=asd, fduration=geometry.fduration, highpass=geometry.highpass
        )
        pieces.append(white.value[margin : margin + part])
    return np.concatenate(pieces)


@dataclass(frozen=True)
class Parity:
    """How far apart the exported models and independent calculations are.

    Attributes:
        whitening_against_float64: Largest difference from the same filter in float64,
            in standard deviations.
        score_against_torch: Largest difference of a valid score from the float64
            and PyTorch path, logits.
        psd_against_gwpy: Largest relative difference from gwpy's median PSD, above
            the highpass.
        whitening_against_gwpy_decorrelation: 1 less the correlation with gwpy's
            ``whiten``, which designs its filter differently.
        whitening_against_gwpy_std: Relative difference of the standard deviations.
    """

    whitening_against_float64: float
    score_against_torch: float
    psd_against_gwpy: float
    whitening_against_gwpy_decorrelation: float
    whitening_against_gwpy_std: float

    def to_json(self) -> str:
        """The figures and their limits."""
        return json.dumps({"measured": asdict(self), "limits": LIMITS}, indent=2) + "\n"


def measure(
    models: Mapping[str, onnx.ModelProto],
    geometry: Geometry,
    network: Network,
    strain: np.ndarray,
) -> Parity:
    """Hold exported models against independent calculations on the same strain.

    Args:
        models: The exported models by name.
        geometry: The analysis.
        network: The network they were made from.
        strain: Noise, [1, ifos, size], of at least ``psd_length + 2`` refreshes.

    Raises:
        ModelError: A figure exceeds its limit.
    """
    refresh, half = geometry.psd_refresh_size, geometry.filter_size // 2
    request = round(7 * geometry.inference_sampling_rate) * geometry.stride_size
    chain = run_chain(models, geometry, strain, request)
    expected = reference.whiten(strain.astype(np.float32), geometry)
    scores, _, valid = reference.score(strain.astype(np.float32), geometry, network)

    # From the first PSD on, the exported models whiten what they are asked to; before
    # it, they are asked for nothing that is valid.
    size = strain.shape[-1] // geometry.stride_size * geometry.stride_size
    begin, end = refresh, size - half
    ours = chain.whitened[..., begin - chain.start : end - chain.start]
    theirs = expected.strain[..., begin - expected.start : end - expected.start]

    # The last PSD whose whole turn lies in the stretch, with some strain after it.
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
