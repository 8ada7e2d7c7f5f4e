"""The report of a training: an HTML page that opens from disk."""

import html
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from playwright.sync_api import Browser

from chirpwatch.commands.cli import cli
from chirpwatch.errors import ConfigurationError
from chirpwatch.geometry import Geometry
from chirpwatch.train.cli import train
from chirpwatch.train.evaluation.compare import write_comparison
from chirpwatch.train.evaluation.effort import SNRS
from chirpwatch.train.evaluation.report import write_run_report
from chirpwatch.train.evaluation.tables import write_report
from chirpwatch.train.evaluation.thresholds import MASSES
from chirpwatch.train.evaluation.validation import validate, weights_hash
from chirpwatch.train.networks.checkpoint import save_checkpoint
from chirpwatch.train.networks.network import Network

SIZES = {
    "noise_length": 960,
    "slides": 8,
    "stretches": 8,
    "bank_size": 16,
    "glitch_bank_size": 16,
    "signals": 20,
    "glitch_windows": 400,
    "scatter": 100,
    "batches": 2,
    "optimum_windows": 500,
    "optimum_signals": 20,
    "bank_windows": 0,
}
FIGURES = {
    "training",
    "efficiency",
    "efficiency_by_rate",
    "roc",
    "scatter",
    "calibration",
}
LOG = """step,epoch,loss,learning_rate,loading_share,valid_loss,valid_found_hour
49,0,0.7,0.001,0.2,,
99,0,0.5,0.002,0.1,,
99,0,,,,0.6,nan
149,0,0.4,0.001,0.1,,
149,0,,,,0.45,0.5
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory, network: Network) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "first"
    result = validate(network, seed=5, **SIZES)
    details = {"command": "chirpwatch train fit", "seed": 1, "steps": 150}
    details |= {"wall_time_length": 60.0, "cpu_time_length": 110.0, "simulated": True}
    save_checkpoint(folder / "network.ckpt", network, details)
    details |= {"versions": {"torch": torch.__version__}}
    write_report(folder / "validation.json", {"checkpoint": details} | result)
    (folder / "metrics.csv").write_text(LOG)
    (folder / "config.yaml").write_text("steps: 150  # <not a tag>\n")
    return folder


@pytest.fixture(scope="module")
def report(run: Path) -> Path:
    result = CliRunner().invoke(cli, ["train", "report", str(run)])
    assert result.exit_code == 0, result.output
    assert result.output.strip() == str(run / "report.html")
    return run / "report.html"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_opens_from_disk_with_every_figure(
    report: Path, browser: Browser, scheme: str
) -> None:
    page = browser.new_page(viewport={"width": 420, "height": 800}, color_scheme=scheme)
    problems: list[str] = []
    page.on("console", lambda message: problems.append(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("requestfailed", lambda request: problems.append(request.url[:80]))
    outside: list[str] = []
    page.on("request", lambda one: outside.append(one.url[:40]))
    page.goto(report.as_uri())
    shown = page.evaluate(
        """async () => {
            const images = [...document.images];
            await Promise.all(images.map(image => image.decode()));
            return images.map(image => [
                image.closest("section").id, image.naturalWidth, image.alt,
                image.currentSrc === image.getAttribute("src")]);
        }"""
    )
    assert {name for name, *_ in shown} == FIGURES
    for _, width, alt, is_light in shown:
        assert width > 500 and alt
        assert is_light == (scheme == "light")
    assert not problems
    assert all(url.startswith(("file://", "data:")) for url in outside)
    # No part is wider than a narrow screen.
    assert page.evaluate("document.documentElement.scrollWidth") <= 420
    # A row for each share, the thresholds, and the clusters above them.
    assert page.locator("#found tbody tr").count() == len(MASSES) * len(SNRS) + 2
    text = page.inner_text("body")
    for words in ("simulated data", "chirpwatch train fit", torch.__version__):
        assert words in text
    assert "<not a tag>" in page.inner_html("pre").replace("&lt;", "<").replace(
        "&gt;", ">"
    )
    page.close()
    assert {path.stem for path in report.with_suffix("").glob("*.png")} == FIGURES


def test_a_page_without_figures_shows_the_training(run: Path, tmp_path) -> None:
    (tmp_path / "metrics.csv").write_text((run / "metrics.csv").read_text())
    page = write_run_report(tmp_path).read_text()
    assert "There is no validation.json." in page
    assert "There is no config.yaml." in page
    assert page.count("<img") == 1


def test_missing_measurements_are_left_out_and_reported(run: Path, tmp_path) -> None:
    result = json.loads((run / "validation.json").read_text())
    for name in ("optimal", "roc", "scatter"):
        del result[name]
    (tmp_path / "validation.json").write_text(json.dumps(result))
    page = write_run_report(tmp_path).read_text()
    assert "lacks the results for this figure" in page
    assert "No limits were measured" in page
    assert "There is no metrics.csv." in page
    assert page.count("<img") == 3


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("validation.json", "{", "expected JSON"),
        ("validation.json", "[]", "expected results of 'chirpwatch train validate'"),
        ("metrics.csv", "loss\n1\n", "expected a column 'step', found loss"),
        ("metrics.csv", "step,loss\n1,no\n", "line 2: expected a number for loss"),
    ],
)
def test_malformed_parts_are_refused(run: Path, tmp_path, name, text, told) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    (folder / name).write_text(text)
    with pytest.raises(ConfigurationError, match=told) as error:
        write_run_report(folder)
    assert name in str(error.value)


def test_incomplete_figures_are_refused(run: Path, tmp_path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    result = json.loads((run / "validation.json").read_text())
    del result["scatter"]["score"]
    (folder / "validation.json").write_text(json.dumps(result))
    with pytest.raises(ConfigurationError, match=r"validation\.json.*score"):
        write_run_report(folder)
    with pytest.raises(ConfigurationError, match="expected the folder of a training"):
        write_run_report(tmp_path / "none")


def test_figures_from_other_weights_are_refused(run: Path, tmp_path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    save_checkpoint(folder / "network.ckpt", Network(Geometry()), {})
    with pytest.raises(ConfigurationError, match=r"validation\.json: expected results"):
        write_run_report(folder)
    with pytest.raises(ConfigurationError, match="validate again"):
        write_comparison([folder], tmp_path / "table.md")


ALL_SIMULATED = "All noise, glitches and mergers in this report are simulated."


@pytest.mark.parametrize(
    ("training", "recorded", "told"),
    [
        (True, [], (ALL_SIMULATED, "both in simulated noise")),
        (
            False,
            [],
            (
                "the training's noise is recorded strain",
                "recorded strain with simulated mergers",
            ),
        ),
        (
            True,
            ["glitches"],
            ("recorded data: the validation's glitches (elsewhere)", "simulated noise"),
        ),
    ],
)
def test_a_page_names_its_simulated_parts(
    run: Path, tmp_path, training, recorded, told
) -> None:
    result = json.loads((run / "validation.json").read_text())
    if training is not None:
        result["checkpoint"]["simulated"] = training
    # These take long to draw, and do not matter here.
    for name in ("efficiency", "roc", "scatter", "calibration", "optimal"):
        del result[name]
    other = {name: result[name] for name in ("thresholds", "found", "signals")}
    other |= {"name": "elsewhere", "recorded": recorded}
    result["noises"] = [other | {"held_rates": {"gaussian": {}, "glitches": {}}}]
    (tmp_path / "validation.json").write_text(json.dumps(result))
    (tmp_path / "metrics.csv").write_text(LOG)
    page = html.unescape(write_run_report(tmp_path).read_text())
    for words in told:
        assert words in page
    everything = training is not False and not recorded
    assert ('<span class="badge">' in page) == everything
    assert (ALL_SIMULATED in page) == everything
    assert f'<td class="left">{"glitches" if recorded else "nothing"}</td>' in page


def test_a_page_without_a_checkpoint_claims_nothing(tmp_path) -> None:
    (tmp_path / "metrics.csv").write_text(LOG)
    page = write_run_report(tmp_path).read_text()
    assert '<span class="badge">' not in page and ALL_SIMULATED not in page
    assert "noise of unknown origin" in page


def test_shipped_figures_make_a_page(tmp_path) -> None:
    shipped = Path(__file__).parents[2] / "train" / "checkpoints" / "matched"
    for name in ("validation.json", "network.ckpt"):
        shutil.copy(shipped / name, tmp_path)
    page = html.unescape(write_run_report(tmp_path).read_text())
    assert "the training's noise is simulated" in page
    assert "the validation's strain (strain of o3a.hdf5)" in page


def _with(folder: Path, **changes: Any) -> Path:
    """Change values in a folder's ``validation.json``."""
    path = folder / "validation.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


def _shares(found: list[dict[str, Any]], share: float) -> list[dict[str, Any]]:
    """The same entries with ``share`` found, between limits of 2 % less and more."""
    return [
        entry
        | {
            name: {"0.001": share + more, "0.0001": share + more}
            for name, more in (("found", 0), ("found_low", -0.02), ("found_high", 0.02))
        }
        for entry in found
    ]


@pytest.fixture
def seeds(run: Path, tmp_path) -> list[Path]:
    """Folders of two trainings of one network."""
    found = json.loads((run / "validation.json").read_text())["found"]
    folders = []
    for name, share in (("one", 0.5), ("two", 0.7)):
        shutil.copytree(run, tmp_path / name)
        changed = {
            "gaussian": _shares(found["gaussian"], share),
            "glitches": _shares(found["glitches"], share - 0.1),
        }
        folders.append(_with(tmp_path / name, found=changed))
    return folders


def test_comparison_puts_seeds_of_one_network_together(
    seeds: list[Path], tmp_path
) -> None:
    narrow, network = tmp_path / "narrow", Network(Geometry(), width=8)
    shutil.copytree(seeds[1], narrow)
    save_checkpoint(narrow / "network.ckpt", network, {})
    found = json.loads((narrow / "validation.json").read_text())["found"]
    # Too little noise with glitches is reported; the rest is still compared.
    for entry in found["glitches"]:
        del entry["found"]["0.0001"]
    _with(narrow, weights=weights_hash(network), found=found)
    out = tmp_path / "table.md"
    folders = [*map(str, seeds), str(narrow)]
    result = CliRunner().invoke(train, ["compare", *folders, "--out", str(out)])
    assert result.exit_code == 0, result.output
    tables = [
        [line.strip("| ").split(" | ") for line in part.splitlines()[2:]]
        for part in out.read_text().split("\n\n")
        if part.startswith("|")
    ]
    costs, clean, glitches = tables
    assert "width" in costs[0][0] and [len(table) for table in tables] == [2, 2, 2]
    assert costs[0][1] == "2" and costs[1][1] == "1"
    assert float(costs[0][3]) > float(costs[1][3]) > 0
    assert set(clean[0][1:]) == {"60.0 ± 14.1 (58.0 to 62.0)"}
    assert set(clean[1][1:]) == {"70.0 (68.0 to 72.0)"}
    assert set(glitches[0][1:]) == {"50.0 ± 14.1 (48.0 to 52.0)"}
    assert glitches[1][1:] == ["60.0 (58.0 to 62.0)"] * len(MASSES) + ["n/a"] * len(
        MASSES
    )
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    (narrow / "validation.json").unlink()
    result = CliRunner().invoke(train, ["compare", str(narrow), "--out", str(out)])
    assert isinstance(result.exception, ConfigurationError)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"seed": 6}, "expected seed = 5 as in"),
        ({"run": "O4"}, "expected run = O3 as in"),
        ({"quick": True}, "expected quick = False as in"),
        ({"weights": "0" * 64}, "found results for 000000000000…"),
    ],
)
def test_figures_from_different_validations_are_not_compared(
    seeds: list[Path], tmp_path, changes, told
) -> None:
    _with(seeds[1], **changes)
    with pytest.raises(ConfigurationError, match=told) as error:
        write_comparison(seeds, tmp_path / "table.md")
    assert str(seeds[1]) in str(error.value)
    assert not (tmp_path / "table.md").exists()


def test_figures_without_a_hash_of_their_weights_are_not_compared(
    seeds: list[Path], tmp_path
) -> None:
    path = seeds[0] / "validation.json"
    result = json.loads(path.read_text())
    del result["weights"]
    path.write_text(json.dumps(result))
    with pytest.raises(ConfigurationError, match="unknown weights; validate again"):
        write_comparison(seeds, tmp_path / "table.md")


def test_numbers_of_a_log_may_be_missing(run: Path) -> None:
    from chirpwatch.train.evaluation.report import read_log

    log = read_log(run / "metrics.csv")
    assert log is not None
    assert np.isnan(log["valid_loss"]).sum() == 3
    assert log["valid_found_hour"][-1] == 0.5
