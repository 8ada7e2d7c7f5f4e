"""Background of a model repository in-process, from timeslides of pairs of stretches.

A stretch of noise is whitened and converted to feature frames once. A stretch of the
first detector is then combined with several of the second at many shifts, which runs
only the head. Scoring every kernel of ten months takes ten minutes. But few pairs of
kernels can be loud, and each detector's own score predicts which: the head's score is
nearly a convex function of the detectors' summed frames, so the score of ``a + b``
exceeds the mean of the scores of ``a + a`` and ``b + b`` by a small margin at most.
Pairs whose mean is below a floor are skipped. ``lost_events`` counts the events lost.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from google.protobuf import text_format
from numpy.lib.stride_tricks import sliding_window_view
from tritonclient.grpc import model_config_pb2

from chirpwatch.clustering import cluster_strides, find_events
from chirpwatch.errors import ModelError
from chirpwatch.geometry import Geometry
from chirpwatch.train.evaluation.deployment import (
    Slides,
)

MODELS = ("stretch", "preprocessor", "frontend", "slides", "head")
MARGIN = 0.5
"""Largest excess of a score over the mean of its kernels' own scores."""

PARTNERS = 5
"""Stretches of the second detector that are combined with each of the first."""

BATCH = 256
"""Pairs of kernels that the head scores at once."""

GROUP = 64
"""Slides in one run of the model ``slides``, to limit memory."""

APART = 1e6
"""Distance between two stretches in ``Slides.times``, s."""


@dataclass(frozen=True, eq=False)
class FeatureFrames:
    """Feature frames of a stretch, and the inputs that decide which scores are valid.

    Attributes:
        features: Feature frames, [1, ifos, channels, frames].
        usable: Whether strain is usable, bool, [ifos, strain frames].
        filters: Whitening filters, [filters, ifos, values].
        strides: Number of scores in the stretch.
    """

    features: np.ndarray
    usable: np.ndarray
    filters: np.ndarray
    strides: int


@dataclass(frozen=True, eq=False)
class PairEvents:
    """Events in timeslides of pairs of stretches.

    Attributes:
        statistics: Score of each event, [n].
        stretches: Stretch of the first and of the second detector, [2, n].
        strides: Stride of the event in each of them, [2, n].
        livetime: Total livetime of the slides, s.
    """

    statistics: np.ndarray
    stretches: np.ndarray
    strides: np.ndarray
    livetime: float

    def slides(self, geometry: Geometry) -> Slides:
        """Convert to ``Slides``, which count independent causes."""
        places = APART * self.stretches + geometry.stride_length * self.strides
        return Slides(self.statistics, places, self.livetime, geometry.kernel_length)

    def rate_error(self, statistic: float, stretches: int) -> float:
        """Relative standard error of the rate of events at or above a threshold.

        Estimated from the scatter of each detector's counts between stretches: a loud
        time of one detector is in many slides, so the counts are not Poisson.

        Args:
            statistic: Threshold.
            stretches: Number of stretches.
        """
        loud = self.stretches[:, self.statistics >= statistic]
        variance = 0.0
        # If each stretch is paired only with itself, both detectors' counts are equal.
        for row in np.unique(loud, axis=0):
            counts = np.bincount(row, minlength=stretches)
            variance += counts.var(ddof=1) / stretches / counts.mean() ** 2
        return math.sqrt(variance)


class Repository:
    """A repository's models in ONNX Runtime, on one thread.

    Args:
        path: Model repository of a two-detector network.

    Attributes:
        geometry: Geometry of the models.
        digest: Digest of the models.

    Raises:
        ModelError: The network has another number of detectors.
    """

    def __init__(self, path: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.sessions = {
            name: onnxruntime.InferenceSession(
                str(path / name / "1" / "model.onnx"),
                options,
                providers=["CPUExecutionProvider"],
            )
            for name in MODELS
        }
        text = (path / "timeslides" / "config.pbtxt").read_text()
        parameters = text_format.Parse(text, model_config_pb2.ModelConfig()).parameters
        self.geometry = Geometry.from_json(parameters["geometry"].string_value)
        self.digest = parameters["model"].string_value
        self.stride_frames = self.geometry.stride_size // self.geometry.frame_size
        if len(self.geometry.ifos) != 2:
            raise ModelError(
                f"{path}: expected a network of two detectors, found "
                f"{', '.join(self.geometry.ifos)}"
            )

    def _run(
        self, model: str, outputs: Sequence[str], values: dict[str, Any]
    ) -> list[np.ndarray]:
        session = self.sessions[model]
        feed = {each.name: values[each.name] for each in session.get_inputs()}
        result: list[np.ndarray] = session.run(list(outputs), feed)
        return result

    def frames(self, strain: np.ndarray) -> FeatureFrames:
        """Whiten a stretch, and compute its feature frames.

        Args:
            strain: A whole number of strides, [ifos, size].
        """
        values: dict[str, Any] = {"strain": strain[None].astype(np.float32)}
        for model, outputs in {
            "stretch": ("snapshot", "filters", "position"),
            "preprocessor": ("whitened", "usable"),
            "frontend": ("features",),
        }.items():
            values |= dict(zip(outputs, self._run(model, outputs, values), strict=True))
        strides = strain.shape[1] // self.geometry.stride_size
        return FeatureFrames(
            values["features"], values["usable"], values["filters"], strides
        )

    def score_slides(
        self, frames: FeatureFrames, shifts: Sequence[int], outputs: Sequence[str]
    ) -> list[np.ndarray]:
        """Run the model ``slides``.

        Args:
            frames: Feature frames of a stretch.
            shifts: Circular shift of the second detector in each slide, in strides,
                [slides].
            outputs: Names of the model's outputs.

        Returns:
            The outputs, each [slides, …].
        """
        values = {
            "features": frames.features,
            "usable": frames.usable,
            "filters": frames.filters,
            "shifts": self.stride_frames * np.array(shifts, dtype=np.int64)[:, None],
        }
        return self._run("slides", outputs, values)

    def own_scores(self, frames: FeatureFrames) -> np.ndarray:
        """Scores of each detector's frames added to themselves.

        Returns:
            Scores, -inf if not valid, [ifos, strides].
        """
        scores = []
        for ifo in range(len(self.geometry.ifos)):
            both = frames.features[:, [ifo, ifo]]
            doubled = FeatureFrames(both, frames.usable, frames.filters, frames.strides)
            score, valid = self.score_slides(doubled, [0], ["score", "valid"])
            scores.append(np.where(valid[0], score[0], -np.inf))
        return np.stack(scores)

    def score_pairs(
        self, first: FeatureFrames, second: FeatureFrames, strides: np.ndarray
    ) -> np.ndarray:
        """Score pairs of kernels, one from each detector.

        Args:
            first: Stretch of the first detector.
            second: Stretch of the second detector.
            strides: Stride of the kernel in each of them, [2, n].

        Returns:
            Scores, [n].
        """
        step = self.stride_frames
        kernels = []
        for ifo, stretch in enumerate((first, second)):
            features = stretch.features[0, ifo]
            kernel = features.shape[-1] - (stretch.strides - 1) * step
            views = sliding_window_view(features, kernel, axis=-1)[:, ::step]
            kernels.append(views.transpose(1, 0, 2))
        # These inputs decide only the validity, which the caller has checked.
        size = first.usable.shape[-1] - (first.strides - 1) * step
        usable, whole = first.usable[:, :size], np.ones(1, bool)
        # float64, since thresholds lie between two scores.
        scores = [np.empty(0)]
        for begin in range(0, strides.shape[1], BATCH):
            chosen = strides[:, begin : begin + BATCH]
            rows = np.stack(
                [views[row] for views, row in zip(kernels, chosen, strict=True)], 1
            )
            values = {"features": rows, "usable": usable, "whole": whole}
            scores.append(self._run("head", ["score"], values)[0][:, 0])
        return np.concatenate(scores)


def slide_shifts(geometry: Geometry, strides: int) -> list[int]:
    """Non-zero shifts of a stretch's slides that share no strain, in strides."""
    least = geometry.kernel_length + geometry.fduration + geometry.stride_length
    step = math.ceil(least * geometry.inference_sampling_rate)
    return [step * number for number in range(1, strides // step)]


def score_all(
    repository: Repository, stretches: Sequence[FeatureFrames], livetime: float
) -> PairEvents:
    """Score every kernel in timeslides of each stretch with itself.

    Args:
        repository: Models.
        stretches: Stretches of noise, of equal length.
        livetime: Livetime to reach, s; less if there are too few slides.

    Returns:
        All events; each stretch has the same number of slides.
    """
    geometry = repository.geometry
    usable = stretches[0].strides - geometry.warmup_strides
    slides = livetime / (len(stretches) * usable * geometry.stride_length)
    shifts = slide_shifts(geometry, stretches[0].strides)[: math.ceil(slides)]
    outputs = ["peak", "peak_stride", "peak_is_event", "valid"]
    parts: list[tuple[np.ndarray, ...]] = []
    valid_strides = 0
    for number, frames in enumerate(stretches):
        for begin in range(0, len(shifts), GROUP):
            group = shifts[begin : begin + GROUP]
            peak, stride, event, valid = repository.score_slides(frames, group, outputs)
            valid_strides += int(valid.sum())
            slide, window = np.nonzero(event)
            first = stride[slide, window]
            second = (first + np.array(group)[slide]) % frames.strides
            same = np.full(len(slide), number)
            statistic = peak[slide, window].astype(np.float64)
            parts.append((statistic, same, same, first, second))
    return _joined(parts, valid_strides * geometry.stride_length)


def score_loud(
    repository: Repository, stretches: Sequence[FeatureFrames], floor: float
) -> PairEvents:
    """Score the loud kernels in all timeslides of each stretch and its partners.

    The partners are the second detector's data of the same stretch and of those that
    follow, circularly. Pairs of kernels that cannot reach the floor are skipped; see
    the module.

    Args:
        repository: Models.
        stretches: Stretches of noise, of equal length.
        floor: Smallest score of an event.

    Returns:
        Events at or above the floor.
    """
    geometry = repository.geometry
    own = [repository.own_scores(frames) for frames in stretches]
    reach = cluster_strides(geometry)
    parts: list[tuple[np.ndarray, ...]] = []
    valid_strides = 0
    count = len(stretches)
    for first_index, step in np.ndindex(count, min(count, PARTNERS)):
        second_index = (first_index + step) % count
        strides = stretches[first_index].strides
        # Different stretches are independent without a shift as well.
        shifts = slide_shifts(geometry, strides) + [0] * (first_index != second_index)
        places = []
        for shift in shifts:
            mean = (own[first_index][0] + np.roll(own[second_index][1], -shift)) / 2
            valid_strides += int(np.isfinite(mean).sum())
            first = np.flatnonzero(mean >= floor - MARGIN)
            places.append(np.stack([first, (first + shift) % strides]))
        pairs = np.concatenate(places, 1)
        scores = repository.score_pairs(
            stretches[first_index], stretches[second_index], pairs
        )
        ends = np.cumsum([place.shape[1] for place in places])[:-1]
        slides = zip(np.split(scores, ends), places, strict=True)
        for score, place in slides:
            row = np.full(strides, -np.inf)
            row[place[0]] = np.where(score >= floor, score, -np.inf)
            events = find_events(row[None], reach)[0][place[0]]
            same = np.ones(int(events.sum()), int)
            indices = first_index * same, second_index * same
            parts.append((score[events], *indices, *place[:, events]))
    return _joined(parts, valid_strides * geometry.stride_length)


def lost_events(
    complete: PairEvents, loud: PairEvents, floor: float
) -> tuple[int, int]:
    """Count the events at or above the floor that ``score_loud`` lost.

    Args:
        complete: Events from ``score_all``.
        loud: Events from ``score_loud``, for the same stretches.
        floor: The floor.

    Returns:
        Number of events of ``complete`` at or above the floor, and of those missing in
        ``loud``.
    """
    above = complete.statistics >= floor
    expected = set(_keys(complete, above))
    return len(expected), len(expected - set(_keys(loud, loud.statistics >= floor)))


def _keys(events: PairEvents, chosen: np.ndarray) -> Iterator[tuple[int, ...]]:
    """Identify events by stretches and strides."""
    columns = np.concatenate([events.stretches, events.strides])[:, chosen]
    return map(tuple, columns.T.tolist())


def _joined(parts: list[tuple[np.ndarray, ...]], livetime: float) -> PairEvents:
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    return PairEvents(
        columns[0], np.stack(columns[1:3]), np.stack(columns[3:5]), livetime
    )
