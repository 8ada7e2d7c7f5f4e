"""H1, L1 and V1 through the complete system, by its commands."""

import itertools
import json
import re
from dataclasses import replace
from pathlib import Path

import h5py
import httpx
import lal
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from chirpwatch.api.contract.requests import Veto
from chirpwatch.api.process import ApiProcess
from chirpwatch.background import Background
from chirpwatch.background_file import read_background
from chirpwatch.commands.cli import cli
from chirpwatch.errors import (
    ConfigurationError,
    ModelError,
    ShiftError,
)
from chirpwatch.export.build import build_models
from chirpwatch.geometry import Geometry
from chirpwatch.serve.embedded import TritonServer
from chirpwatch.signals import (
    ProjectedSignals,
    read_test_signals,
)
from chirpwatch.strain import Segment
from chirpwatch.streamer.background.plan import make_plan
from chirpwatch.streamer.client import ScoreClient
from chirpwatch.streamer.live.channels import chosen_channels
from chirpwatch.streamer.replay.jobs import SequenceJob
from chirpwatch.streamer.timeslides import Timeslides
from chirpwatch.train.data.noise.lines import detector_lines
from chirpwatch.train.data.signals.waveforms import (
    arrival_delays,
    light_travel_lengths,
    sky,
)
from chirpwatch.train.data.windows import WindowMaker
from chirpwatch.train.evaluation.deployment import (
    DeployedValidation,
    whiten_stretch,
)
from chirpwatch.train.evaluation.effort import Effort, effort_of
from chirpwatch.train.evaluation.matched_filter import MatchedFilter
from chirpwatch.train.evaluation.rank import rank_event
from chirpwatch.train.evaluation.scoring import (
    frames_of,
    slide_pieces,
)
from chirpwatch.train.evaluation.validation import slide_blocks, validate
from chirpwatch.train.networks.checkpoint import load_checkpoint
from tests.builders import START, valid_by_hand, write_gwosc
from tests.networks import TINY, TINY_EFFORT, TINY_WINDOWS, EnergyNetwork
from tests.streamer.live.search import Search

IFOS = ("H1", "L1", "V1")
GEOMETRY = Geometry(ifos=IFOS)
NAMES = ",".join(IFOS)
RATE = 2048
DURATION = 128
STEP = 131
"""Smallest step between slides: kernel, filter and light travel, feature frames."""


def run(*arguments: object) -> str:
    done = CliRunner().invoke(cli, list(map(str, arguments)), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("three")


@pytest.fixture(scope="module")
def background(folder: Path) -> Path:
    path = folder / "background.hdf5"
    told = run(
        *("simulate", "background", path, "--ifos", NAMES, "--duration", DURATION),
        *("--seed", 3),
    )
    assert "H1, L1, V1" in told
    return path


@pytest.fixture(scope="module")
def signals_file(folder: Path, background: Path) -> Path:
    path = folder / "signals.hdf5"
    run(
        *("simulate", "signals", path, "--ifos", NAMES, "--background", background),
        *("--snr", 50, 80, "--first", 30, "--spacing", 12, "--jitter", 1, "--seed", 3),
    )
    return path


@pytest.fixture(scope="module")
def checkpoint(folder: Path) -> Path:
    """A network after sixty training steps, with a small validation."""
    path = folder / "train"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "chirpwatch.train.evaluation.effort.QUICK",
            Effort(**TINY_EFFORT, slides=1),
        )
        # It draws the figures of validation.json for any detectors.
        patch.setattr(
            "chirpwatch.train.evaluation.report.write_run_report", lambda folder: None
        )
        run(
            *("train", "fit", "--config", "split", "--folder", path, "--steps", 60),
            *(*TINY, f"--data.geometry.ifos=[{NAMES}]", "--figures=quick"),
            *("--validate_every=60", "--monitor=valid_loss"),
        )
    return path / "network.ckpt"


@pytest.fixture(scope="module")
def repository(folder: Path, checkpoint: Path) -> Path:
    path = folder / "models"
    run("export", checkpoint, path)
    return path


@pytest.fixture(scope="module")
def server(repository: Path):
    with TritonServer(repository) as server:
        yield server


@pytest.fixture(scope="module")
def api(folder: Path):
    with ApiProcess(folder / "results.db", log=folder / "api.log") as api:
        (folder / "token").write_text(api.token)
        yield api


@pytest.fixture(scope="module")
def segment(background: Path) -> Segment:
    (segment,) = read_background(background, "test", IFOS, RATE)
    return segment


@pytest.fixture(scope="module")
def signals(signals_file: Path, segment: Segment) -> ProjectedSignals:
    return read_test_signals(signals_file, segment.name, (0, 0, 0), IFOS)


def connected(folder: Path, server: TritonServer, api: ApiProcess) -> list[object]:
    return [
        *("--triton", server.address, "--api", api.url),
        *("--token-file", folder / "token"),
    ]


@pytest.fixture(scope="module")
def replayed(folder, background, signals_file, server, api) -> dict:
    path = folder / "replay.json"
    run(
        *("replay", "--background", background, "--signals", signals_file),
        *("--slides", 4, "--far", 10_000_000, "--directory", folder / "replay"),
        *("--json", path, *connected(folder, server, api)),
    )
    return json.loads(path.read_text())


def score(server: TritonServer, strain: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scores and validity of strain, float32 [ifos, size], in a single sequence."""
    scores, valid = score_rows(server, strain[None])
    return scores[0], valid


def score_rows(server: TritonServer, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scores and validity of rows [rows, ifos, size] in a single sequence."""
    strides = rows.shape[-1] // GEOMETRY.stride_size
    pieces = list(
        ScoreClient(server.address).stream(lambda a, b: rows[..., a:b], strides, 512)
    )
    return (
        np.concatenate([piece.score for piece in pieces], 1),
        np.concatenate([piece.valid for piece in pieces]),
    )


def strain_of(segment: Segment) -> np.ndarray:
    parts = [segment.read(ifo, 0, segment.size) for ifo in IFOS]
    return np.stack(parts).astype(np.float32)


def test_the_detectors_noise_is_independent_and_has_their_spectra(segment) -> None:
    strain = np.stack([segment.read(ifo, 0, segment.size) for ifo in IFOS])
    spectra = np.fft.rfft(strain.reshape(3, -1, 2 * RATE) * np.hanning(2 * RATE))
    power = (abs(spectra) ** 2).mean(1)
    band = slice(200, 400)
    # Virgo's noise at 100 to 200 Hz was three to five times LIGO's in O3.
    ratios = np.sqrt(np.median(power[2, band] / power[:2, band], axis=-1))
    assert (ratios > 2).all() and (ratios < 7).all()
    for one, other in ((0, 1), (0, 2), (1, 2)):
        cross = (spectra[one] * spectra[other].conj()).mean(0)
        coherence = abs(cross[band]) ** 2 / (power[one] * power[other])[band]
        assert coherence.mean() == pytest.approx(1 / (DURATION // 2), rel=0.5)


def test_virgo_has_the_lines_of_its_site() -> None:
    rng = np.random.default_rng(1)
    found = [line.frequency for line in detector_lines("V1", rng)]
    assert found[:6] == [50, 100, 150, 200, 250, 300]
    assert all(442 < line < 455 or 884 < line < 907 for line in found[6:])


def test_mergers_reach_each_detector_when_light_does(signals) -> None:
    """Delays from LALSuite's positions, in the strain and in the parameters."""
    delays = np.stack([signals.parameters[f"delay_{ifo}"] for ifo in IFOS], 1)
    assert (delays.min(1) == 0).all()
    sites = np.stack([lal.cached_detector_by_prefix[ifo].location for ifo in IFOS])
    dec, phi = signals.parameters["dec"], signals.parameters["phi"]
    source = [np.cos(dec) * np.cos(phi), np.cos(dec) * np.sin(phi), np.sin(dec)]
    expected = -np.stack(source, 1) @ sites.T / lal.C_SI
    expected -= expected.min(1, keepdims=True)
    np.testing.assert_allclose(delays, expected, rtol=0, atol=1e-6)
    # More than the light travel time between H1 and L1.
    assert 0.0101 < abs(delays[:, 2] - delays[:, 0]).max() < 0.0274
    strain = np.stack([signals.strain[i] for i in range(len(signals))])
    spectrum = np.fft.fft(strain)
    spectrum[..., strain.shape[-1] // 2 + 1 :] = 0
    peaks = abs(np.fft.ifft(spectrum)).argmax(-1)
    assert abs(peaks - signals.merger_size - delays * RATE).max() < 3


def test_an_injection_lies_in_each_detector_at_its_own_time(segment, signals) -> None:
    job = SequenceJob(segment, GEOMETRY, (0.0, 0.0, 0.0), {"set": signals})
    late = int(np.argmax(signals.parameters["delay_V1"]))
    at = (int(signals.gps_time_ns[late]) - job.t0_ns) * RATE // 10**9
    rows = job.read(at - RATE, at + RATE)
    added = (rows[1] - rows[0]).astype(np.float64)
    spectrum = np.fft.fft(added)
    spectrum[:, RATE + 1 :] = 0
    peaks = abs(np.fft.ifft(spectrum)).argmax(-1)
    delays = [signals.parameters[f"delay_{ifo}"][late] for ifo in IFOS]
    assert peaks == pytest.approx(RATE + np.array(delays) * RATE, abs=3)


def test_the_trainings_validation_uses_three_detectors(checkpoint) -> None:
    network, details = load_checkpoint(checkpoint)
    assert network.geometry == GEOMETRY and len(network.projections) == 3
    result = json.loads((checkpoint.parent / "validation.json").read_text())
    assert abs(details["peak_offset_size"]) < 2 * RATE
    # The optimal efficiency rises with SNR in three detectors, too.
    found = result["optimal"]["matched"][0]["found"]["0.001"]
    assert found[0] < 0.2 and found[-1] > 0.98


def test_each_detector_counts_for_the_score(server, segment, signals) -> None:
    """Without a merger's signal in a detector, the score changes, and only there.

    All are rows of a sequence, whose first row gives the PSD: only the strain differs.
    """
    job = SequenceJob(segment, GEOMETRY, (0.0, 0.0, 0.0), {"set": signals})
    quiet = strain_of(segment)
    loud = job.read(0, segment.size)[1]
    rows = np.stack([quiet, loud, loud, loud, loud])
    for i in range(3):
        rows[2 + i, i] = quiet[i]
    (silent, whole, *muted), _ = score_rows(server, rows)
    mergers = (signals.gps_time_ns - job.t0_ns) // 125_000_000
    for one in muted:
        changed = abs(one - whole)
        assert np.median([changed[m : m + 16].max() for m in mergers]) > 1
        # From 1 to 3 s before the mergers, the signals are below float32's resolution.
        assert max(changed[m - 24 : m - 8].max() for m in mergers) < 1e-3
    # Before the first merger, scores are equal.
    first = int(mergers[0])
    assert np.array_equal(whole[: first - 30], silent[: first - 30])


def test_mergers_are_found_at_their_times(replayed, signals, api) -> None:
    injections = replayed["injections"]
    assert injections["total"] == len(signals) == 9
    found = injections["found"]
    assert len(found) >= 8
    for one in found:
        assert abs(one["time"] - one["event"]["time"]) < 1 / 16
    warmup = GEOMETRY.warmup_strides / 8
    assert replayed["livetime"]["zero_lag"] == DURATION - warmup


def slide_livetimes(slides: list[tuple[dict, float]], strides: int) -> None:
    """Compare the shifts and livetimes of slides with counting by hand."""
    for k, (shifts, livetime) in enumerate(slides, start=1):
        assert shifts == {"H1": 0, "L1": k * STEP / 64, "V1": 2 * k * STEP / 64}
        valid = valid_by_hand(strides, (k * STEP, 2 * k * STEP))
        assert livetime == valid.sum() / 8


def test_slides_of_a_replay_have_two_shifts_and_their_exact_livetime(replayed) -> None:
    slides = replayed["background"]["slides"]
    assert len(slides) == 4
    ordered = sorted(slides, key=lambda slide: slide["shifts"]["L1"])
    slide_livetimes(
        [(slide["shifts"], slide["livetime"]) for slide in ordered], 8 * DURATION
    )


def test_a_slide_scores_what_the_shifted_detectors_score(server, segment) -> None:
    """Against a sequence of the strain that does not wrap around."""
    strain, shift = strain_of(segment), 8 * 40
    slides = Timeslides(server.address).scores(strain, np.array([[shift, 2 * shift]]))
    job = SequenceJob(segment, GEOMETRY, (0.0, shift / 64, 2 * shift / 64))
    pieces = list(
        ScoreClient(server.address).stream(
            job.read, job.strides, 512, offsets=job.offsets
        )
    )
    alone = np.concatenate([piece.score[0] for piece in pieces])
    valid = np.concatenate([piece.valid for piece in pieces])
    part = slides.valid[0, : len(alone)] & valid
    assert part.sum() > 600
    np.testing.assert_allclose(
        slides.score[0, : len(alone)][part], alone[part], rtol=0, atol=1e-4
    )
    # A different shift of V1 alone makes another slide.
    other = Timeslides(server.address).scores(strain, np.array([[shift, shift]]))
    both = other.valid[0] & slides.valid[0]
    assert abs(other.score[0] - slides.score[0])[both].max() > 1e-2


def test_the_service_answers_for_three_detectors(replayed, folder, api) -> None:
    with api.client() as client:
        run_id = replayed["run"]
        assert tuple(client.run(run_id).geometry.ifos) == IFOS
        assert {tuple(one.shifts) for one in client.slides(run_id)} == {IFOS}
        candidate = client.candidates(run_id).candidates[0]
        at = candidate.time_ns
        assert client.candidate(run_id, at).far_per_year > 0
        assert client.far(run_id, candidate.statistic)
        whitened = client.whitened(run_id, at).strain
        assert tuple(whitened) == IFOS
        for ifo in IFOS:
            assert 0.8 < np.std(whitened[ifo]) < 1.3
            assert client.q_transform(run_id, at, ifo).ifo == ifo
        client.efficiency(run_id, 1e7)
        client.ifar(run_id)
        storm = [[at - 10**9, at + 10**9]]
        client.put_veto(
            run_id, "storm", Veto(ifos=["V1"], reason="wind", segments=storm)
        )
        assert client.run(run_id).zero_lag.livetime < replayed["livetime"]["zero_lag"]
        client.delete_veto(run_id, "storm")
        client.export(run_id, folder / "export.hdf5")
    with h5py.File(folder / "export.hdf5") as file:
        columns = file["background/slides"].dtype.names
        assert {f"shift_{ifo}" for ifo in IFOS} <= set(columns)
    for path in ("/", f"/runs/{run_id}/candidates/{at}"):
        page = httpx.get(api.url + path, trust_env=False)
        assert page.status_code == 200
    assert 'id="q-V1"' in page.text


def test_background_of_three_detectors(folder, background, server, api) -> None:
    path = folder / "background.json"
    run(
        *("background", "--background", background, "--slides", 6),
        *("--stretch-length", "64s", "--workers", 1, "--json", path),
        *("--directory", folder / "slides", *connected(folder, server, api)),
    )
    result = json.loads(path.read_text())
    with api.client() as client:
        slides = client.slides(result["run"])
    ordered = sorted(slides, key=lambda slide: slide.shifts["L1"])
    expected = [
        2 * valid_by_hand(512, (k * STEP, 2 * k * STEP)).sum() / 8 for k in range(1, 7)
    ]
    assert [slide.livetime for slide in ordered] == expected
    assert result["livetime"] == sum(expected)


@pytest.mark.slow
def test_live_reads_virgos_channels_and_waits_for_its_frames(
    folder, server, api
) -> None:
    short, frames = folder / "short.hdf5", folder / "frames"
    names = ("--ifos", NAMES)
    run("simulate", "background", short, *names, "--duration", 24, "--seed", 4)
    run(
        *("frames", "--background", short, *names, "--frames", frames, "--speed", "inf")
    )
    missing = frames / "V1" / f"V-V1_llhoft-{START + 12}-1.gwf"
    missing.unlink()
    with Search(folder, frames, server.address, api) as search:
        search.wait_until(START + 24)
        metrics = search.metrics()
        search.end()
    assert metrics["chirpwatch_live_seconds_total", "gap"] == 1
    with api.client() as client:
        (found,) = [one for one in client.runs().runs if one.id.startswith("live-")]
        livetime = client.run(found.id).zero_lag.livetime
        scores = client.scores(found.id, points=20_000)
    assert livetime == 23 - 2 * GEOMETRY.warmup_strides / 8
    (segment,) = read_background(short, "test", IFOS, RATE)
    first, valid = score(server, strain_of(segment)[:, : 12 * RATE])
    theirs = [one for one in scores.maximum if one is not None][: valid.sum()]
    np.testing.assert_allclose(theirs, first[valid], rtol=1e-5, atol=1e-5)


def test_files_of_three_detectors_are_given_one_after_the_other(
    tmp_path, server
) -> None:
    rng, files = np.random.default_rng(1), []
    for ifo in IFOS:
        data = 1e-21 * rng.standard_normal(40 * 4096)
        files.append(write_gwosc(tmp_path / f"{ifo}.hdf5", ifo, data))
    plan = ("--slides", 1, "--dry-run", "--triton", server.address)
    paths = ("--directory", tmp_path / "run")
    for words in (
        ["--strain", *files],
        [f"--strain={files[0]}", *files[1:]],
        [word for file in files for word in ("--strain", file)],
    ):
        told = run("background", *words, *plan, *paths)
        assert all(f"{ifo}.hdf5" in told for ifo in IFOS)
    done = CliRunner().invoke(
        cli, list(map(str, ("background", "--strain", *files[:2], *plan, *paths)))
    )
    assert "expected files for the detectors H1, L1, V1, found H1, L1" in str(
        done.exception
    )


def test_channels_are_those_of_each_detector_unless_another_is_named() -> None:
    usual = chosen_channels(IFOS, (), (), ())
    assert usual["L1"].strain == "L1:GDS-CALIB_STRAIN" and usual["L1"].mask == 3
    assert usual["V1"].strain == "V1:Hrec_hoft_16384Hz" and usual["V1"].mask == 1027
    chosen = chosen_channels(
        IFOS, ("CLEAN", "V1:RAW"), ("V1:",), ("0,1,2", "V1:0", "H1:5")
    )
    assert [one.strain for one in chosen.values()] == ["H1:CLEAN", "L1:CLEAN", "V1:RAW"]
    assert [one.state is None for one in chosen.values()] == [False, False, True]
    assert [one.bits for one in chosen.values()] == [(5,), (0, 1, 2), (0,)]
    with pytest.raises(ConfigurationError, match=r"H1, L1, V1.* found 'K1:RAW'"):
        chosen_channels(IFOS, ("K1:RAW",), (), ())


def test_unknown_detectors_are_refused(tmp_path) -> None:
    out = tmp_path / "out.hdf5"
    for what, names, message in (
        ("background", "H1,X1", "expected the noise curve O3/X1, found .*O3/V1"),
        ("signals", "H1,X1", "whose site ml4gw has .*, found H1, X1"),
        ("background", "H1,H1", "expected distinct detectors"),
        ("background", "H1,", "expected distinct detectors"),
    ):
        done = CliRunner().invoke(cli, ["simulate", what, str(out), "--ifos", names])
        assert done.exit_code and not out.exists()
        found = re.search(message, f"{done.output} {done.exception}")
        assert found, f"{done.output} {done.exception}"
    shifts = ["simulate", "signals", str(out), "--ifos", NAMES, "--shifts", "0,4"]
    done = CliRunner().invoke(cli, shifts)
    assert "expected 3 numbers with commas, for H1, L1, V1; found '0,4'" in done.output


@given(total=st.integers(2, 200), shift=st.integers(0, 400), ifos=st.integers(1, 4))
def test_a_slides_pieces_have_every_sample_of_each_detector_once(
    total, shift, ifos
) -> None:
    read = [[], [], [], []]
    for begins, size in slide_pieces(total, shift, ifos):
        for row, begin in zip(read, begins, strict=False):
            # Each detector's data are contiguous within a piece.
            assert begin + size <= total
            row += range(begin, begin + size)
    for i, row in enumerate(read[:ifos]):
        assert row == [(t + i * shift) % total for t in range(total)]


def test_validation_slides_each_detector_against_each_other(checkpoint) -> None:
    network, _ = load_checkpoint(checkpoint)
    settings = replace(TINY_WINDOWS, bank_size=8, glitch_bank_size=4)
    validation = DeployedValidation(
        GEOMETRY, settings, 5, length=200, slides=5, injections=2, windows=64
    )
    slides = validation.run_slides(network.fused())
    with torch.inference_mode():
        frames = frames_of(network.fused(), validation._background[0]).shape[-1]
    # L1 is read later than H1, and V1 later than L1 by as much, circularly.
    later = np.diff(slides.times, axis=0) * 64 % frames
    assert later.shape[0] == 2 and (later[0] == later[1]).all()
    steps = np.unique(later)
    assert len(steps) == 5 and (np.diff(steps) == steps[0]).all() and steps[0] > 128
    # The same kernels of the same stretch, combined again by hand.
    loudest, size = int(slides.statistics.argmax()), 2 * validation._size
    number = int(slides.times[0, loudest] * RATE // size)
    begins = np.round(slides.times[:, loudest] * RATE).astype(int) - number * size
    rows = zip(validation._background[number], begins, strict=True)
    windows = torch.stack([row[begin : begin + RATE] for row, begin in rows])
    with torch.inference_mode():
        alone = float(network.fused()(windows[None]))
    assert alone == pytest.approx(slides.statistics[loudest], abs=1e-3)


@pytest.mark.parametrize(("ifos", "most"), [(1, 1), (2, 16), (3, 10), (4, 7)])
def test_validation_pairs_each_noise_sample_once_with_another_detectors(
    ifos, most
) -> None:
    network = EnergyNetwork(Geometry(ifos=(*IFOS, "K1")[:ifos]))
    effort = effort_of(network)
    assert effort.slides == most
    blocks = torch.arange(effort.stretches)[:, None].expand(-1, ifos)
    slides = [slide_blocks(blocks, slide) for slide in range(most)]
    for one, other in itertools.combinations(range(ifos), 2):
        met = [tuple(row) for slid in slides for row in slid[:, [one, other]].tolist()]
        assert len(set(met)) == len(met)


def test_more_slides_than_the_stretches_allow_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="at most 10 slides of 20 noise"):
        validate(EnergyNetwork(GEOMETRY), slides=11)


@torch.inference_mode()
def test_an_event_is_ranked_among_windows_separate_in_each_pair(
    checkpoint, segment
) -> None:
    network, _ = load_checkpoint(checkpoint)
    short = Segment(
        segment.t0_ns, RATE, {ifo: segment.read(ifo, 0, 18 * RATE) for ifo in IFOS}
    )
    quiet = Background.of([1.0, 2.0, 3.0], 1e6)
    result = rank_event(network, short, START + 12.0, quiet)
    windows = [
        torch.from_numpy(whiten_stretch(one.astype(float), GEOMETRY)).unfold(
            -1, RATE, 256
        )
        for one in short.strain.values()
    ]
    kernels = len(windows[0])
    places = [
        (first, first + shift, first + 2 * shift)
        for shift in range(-kernels, kernels)
        for first in range(kernels)
        if abs(shift) >= 17 and 0 <= first + 2 * shift < kernels
    ]
    apart = np.array(places).T
    chosen = [window[at] for window, at in zip(windows, apart, strict=True)]
    alone = network.fused()(torch.stack(chosen, 1))
    assert result["file"]["windows"] == len(places)
    assert result["file"]["loudest"] == pytest.approx(float(alone.max()), abs=1e-3)
    begins = START + 8 - 1.5 + np.arange(kernels) / 8
    holds = (begins <= START + 12) & (begins + 1 > START + 12)
    assert result["file_without_event"]["windows"] == (~holds[apart].any(0)).sum()


def test_virgo_is_farther_away_than_livingston() -> None:
    lengths = light_travel_lengths(IFOS)
    expected = [
        lal.LightTravelTime(
            *(lal.cached_detector_by_prefix[ifo] for ifo in (one, other))
        )
        / 1e9
        for one in IFOS
        for other in IFOS
    ]
    np.testing.assert_allclose(lengths.flatten(), expected, rtol=0, atol=1e-6)
    # At least a signal's largest delay, and at most the filter's reach.
    delays = arrival_delays(sky(20_000), IFOS)
    delays = (delays - delays[:, :1]).abs().amax(0)
    assert (delays <= lengths[0] + 1e-9).all() and (delays >= 0.99 * lengths[0]).all()
    reaches = MatchedFilter(GEOMETRY, (35.0, 35.0), "O3", 0.57, seed=1).reaches
    assert reaches == [0, 21, 56]


def test_detectors_that_change_places_keep_their_signals_together() -> None:
    """All detectors are permuted, whatever their number, and none is repeated."""
    settings = replace(
        TINY_WINDOWS, swap_share=1.0, flip_share=0.0, reversal_share=0.0, batch_size=8
    )
    moved = WindowMaker(GEOMETRY, settings, seed=4).batch(0, 30.0).windows
    settings = replace(settings, swap_share=0.0)
    still = WindowMaker(GEOMETRY, settings, seed=4).batch(0, 30.0).windows
    assert moved.equal(still[:, [1, 2, 0]])


def test_timeslides_of_a_single_detector_are_refused(checkpoint, segment) -> None:
    alone = Geometry(ifos=("V1",))
    with pytest.raises(ShiftError, match="two detectors or more, found V1 alone"):
        make_plan([segment], alone, slides=1)
    network = EnergyNetwork(alone)
    with pytest.raises(ModelError, match=r"two detectors or more, found V1 alone"):
        build_models(network, 0.0)
    settings = replace(TINY_WINDOWS, bank_size=8, glitch_bank_size=4)
    validation = DeployedValidation(
        alone, settings, 5, length=200, slides=5, injections=2, windows=64
    )
    assert validation.run_slides(network) is None
    with pytest.raises(ShiftError, match=r"at least two detectors.* found only V1"):
        rank_event(network, segment, START + 12.0, Background.of([1.0], 1e6))
    with pytest.raises(ConfigurationError, match="at most 1 slides"):
        validate(network, slides=2)
