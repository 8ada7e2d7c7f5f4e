"""Background of a model repository in-process: timeslides of pairs of stretches.

A stretch of noise is whitened and converted to feature frames once. A stretch of the
first detector is then combined with several of the second at many shifts, which runs
only the head. Scoring every kernel of ten months takes ten minutes. But only few pairs
of kernels can be loud, and each detector alone shows which: the head's score is nearly
a convex function of the detectors' summed frames, so that the score of ``a + b``
exceeds the mean of the scores of ``a + a`` and ``b + b`` at most by a small margin.
Pairs whose mean is below a floor are not scored. ``lost_events`` measures how many
events that loses.
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
"""How far a score may exceed the mean of its kernels' own scores."""

PARTNERS = 5
"""Stretches of the second detector for each one of the first."""

BATCH = 256
"""Pairs of kernels that the head scores at a time."""

GROUP = 64
"""Slides in one run of the model ``slides``; bounds the memory."""

APART = 1e6
"""Distance between two stretches in ``Slides.places``, s."""


@dataclass(frozen=True, eq=False)
class Frames:
    """Feature frames of a stretch, and what decides which scores are valid.

    Attributes:
        features: [1, ifos, channels, frames].
        usable: Usable strain, bool, [ifos, strain frames].
        filters: Whitening filters, [filters, ifos, values].
        strides: Scores of the stretch.
    """

    features: np.ndarray
    usable: np.ndarray
    filters: np.ndarray
    strides: int


@dataclass(frozen=True, eq=False)
class Events:
    """Events of timeslides of pairs of stretches.

    Attributes:
        statistics: Score of each event, [n].
        stretches: Stretch of the first and of the second detector, [2, n].
        strides: Stride of the event in each of them, [2, n].
        livetime: Valid time of all slides together, s.
    """

    statistics: np.ndarray
    stretches: np.ndarray
    strides: np.ndarray
    livetime: float

    def slides(self, geometry: Geometry) -> Slides:
        """The same events as the validation has them, to count independent causes."""
        places = APART * self.stretches + geometry.stride_length * self.strides
        return Slides(self.statistics, places, self.livetime, geometry.kernel_length)

    def rate_error(self, statistic: float, stretches: int) -> float:
        """Relative standard error of the rate of events at least as loud.

        From the scatter of the counts between stretches, of each detector: a loud
        moment of one detector is in many slides, and counts are not Poisson's.

        Args:
            statistic: Threshold.
            stretches: How many there are.
        """
        loud = self.stretches[:, self.statistics >= statistic]
        variance = 0.0
        # Where stretches meet themselves alone, both detectors have the same counts.
        for row in np.unique(loud, axis=0):
            counts = np.bincount(row, minlength=stretches)
            variance += counts.var(ddof=1) / stretches / counts.mean() ** 2
        return math.sqrt(variance)


class Repository:
    """Models of a repository, in ONNX Runtime on one thread.

    Args:
        path: Model repository of a network of two detectors.

    Attributes:
        geometry: The analysis.
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
        feed = {one.name: values[one.name] for one in session.get_inputs()}
        result: list[np.ndarray] = session.run(list(outputs), feed)
        return result

    def frames(self, strain: np.ndarray) -> Frames:
        """Whiten a stretch and compute its frames.

        Args:
            strain: Whole strides, [ifos, size].
        """
        values: dict[str, Any] = {"strain": strain[None].astype(np.float32)}
        for model, outputs in {
            "stretch": ("snapshot", "filters", "position"),
            "preprocessor": ("whitened", "usable"),
            "frontend": ("features",),
        }.items():
            values |= dict(zip(outputs, self._run(model, outputs, values), strict=True))
        strides = strain.shape[1] // self.geometry.stride_size
        return Frames(values["features"], values["usable"], values["filters"], strides)

    def score_slides(
        self, frames: Frames, shifts: Sequence[int], outputs: Sequence[str]
    ) -> list[np.ndarray]:
        """Run the model ``slides``.

        Args:
            frames: A stretch.
            shifts: Strides by which the second detector is read later than the first,
                circularly within the stretch, [slides].
            outputs: Names of the model's outputs.

        Returns:
            These outputs, [slides, …] each.
        """
        values = {
            "features": frames.features,
            "usable": frames.usable,
            "filters": frames.filters,
            "shifts": self.stride_frames * np.array(shifts, dtype=np.int64)[:, None],
        }
        return self._run("slides", outputs, values)

    def own_scores(self, frames: Frames) -> np.ndarray:
        """Scores of each detector's frames added to themselves; -inf if not valid.

        Returns:
            [ifos, strides].
        """
        scores = []
        for ifo in range(len(self.geometry.ifos)):
            both = frames.features[:, [ifo, ifo]]
            doubled = Frames(both, frames.usable, frames.filters, frames.strides)
            score, valid = self.score_slides(doubled, [0], ["score", "valid"])
            scores.append(np.where(valid[0], score[0], -np.inf))
        return np.stack(scores)

    def score_pairs(
        self, first: Frames, second: Frames, strides: np.ndarray
    ) -> np.ndarray:
        """Score pairs of kernels, one of each detector.

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
        # The score does not need these inputs: which strides are valid is known.
        size = first.usable.shape[-1] - (first.strides - 1) * step
        usable, whole = first.usable[:, :size], np.ones(1, bool)
        # Double precision: thresholds lie between two scores.
        scores = [np.empty(0)]
        for begin in range(0, strides.shape[1], BATCH):
            chosen = strides[:, begin : begin + BATCH]
            rows = np.stack(
                [views[one] for views, one in zip(kernels, chosen, strict=True)], 1
            )
            values = {"features": rows, "usable": usable, "whole": whole}
            scores.append(self._run("head", ["score"], values)[0][:, 0])
        return np.concatenate(scores)


def slide_shifts(geometry: Geometry, strides: int) -> list[int]:
    """Shifts of a stretch's slides that share no strain, in strides, without zero."""
    least = geometry.kernel_length + geometry.fduration + geometry.stride_length
    step = math.ceil(least * geometry.inference_sampling_rate)
    return [step * number for number in range(1, strides // step)]


def score_all(
    repository: Repository, stretches: Sequence[Frames], livetime: float
) -> Events:
    """Events of slides of which every kernel is scored, as many of each stretch.

    Args:
        repository: The models.
        stretches: Stretches of noise, of one length.
        livetime: Least time of all slides together, as far as there are slides, s.
    """
    geometry = repository.geometry
    usable = stretches[0].strides - geometry.warmup_strides
    wanted = livetime / (len(stretches) * usable * geometry.stride_length)
    shifts = slide_shifts(geometry, stretches[0].strides)[: math.ceil(wanted)]
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
    repository: Repository, stretches: Sequence[Frames], floor: float
) -> Events:
    """Events above a floor of all slides of each stretch and its partners.

    Its partners are the second detector's data of itself and of the stretches that
    follow, circularly. Pairs of kernels that cannot reach the floor are not scored; see
    the module.

    Args:
        repository: The models.
        stretches: Stretches of noise, of one length.
        floor: Smallest score of an event.
    """
    geometry = repository.geometry
    own = [repository.own_scores(frames) for frames in stretches]
    reach = cluster_strides(geometry)
    parts: list[tuple[np.ndarray, ...]] = []
    valid_strides = 0
    count = len(stretches)
    for one, step in np.ndindex(count, min(count, PARTNERS)):
        two, strides = (one + step) % count, stretches[one].strides
        # Different stretches are independent without any shift.
        shifts = slide_shifts(geometry, strides) + [0] * (one != two)
        places = []
        for shift in shifts:
            mean = (own[one][0] + np.roll(own[two][1], -shift)) / 2
            valid_strides += int(np.isfinite(mean).sum())
            first = np.flatnonzero(mean >= floor - MARGIN)
            places.append(np.stack([first, (first + shift) % strides]))
        pairs = np.concatenate(places, 1)
        scores = repository.score_pairs(stretches[one], stretches[two], pairs)
        ends = np.cumsum([place.shape[1] for place in places])[:-1]
        slides = zip(np.split(scores, ends), places, strict=True)
        for score, place in slides:
            row = np.full(strides, -np.inf)
            row[place[0]] = np.where(score >= floor, score, -np.inf)
            events = find_events(row[None], reach)[0][place[0]]
            same = np.ones(int(events.sum()), int)
            parts.append((score[events], one * same, two * same, *place[:, events]))
    return _joined(parts, valid_strides * geometry.stride_length)


def lost_events(whole: Events, loud: Events, floor: float) -> tuple[int, int]:
    """How many events above the floor ``score_loud`` lost.

    Args:
        whole: From ``score_all``.
        loud: From ``score_loud``, of the same stretches.
        floor: Its floor.

    Returns:
        Events of ``whole`` that are at least as loud as the floor, and those of them
        that ``loud`` has not.
    """
    above = whole.statistics >= floor
    expected = set(_keys(whole, above))
    return len(expected), len(expected - set(_keys(loud, loud.statistics >= floor)))


def _keys(events: Events, chosen: np.ndarray) -> Iterator[tuple[int, ...]]:
    columns = np.concatenate([events.stretches, events.strides])[:, chosen]
    return map(tuple, columns.T.tolist())


def _joined(parts: list[tuple[np.ndarray, ...]], livetime: float) -> Events:
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    return Events(columns[0], np.stack(columns[1:3]), np.stack(columns[3:5]), livetime)
