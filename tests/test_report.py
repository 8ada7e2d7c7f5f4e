"""The report of a training: what an expert opens after it, from disk."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from playwright.sync_api import Browser, sync_playwright

from chirpwatch.cli import cli
from chirpwatch.errors import ConfigurationError
from chirpwatch.geometry import Geometry
from train.checkpoint import save_checkpoint
from train.cli import train
from train.network import Network
from train.report import write_run_report
from train.validate import validate, write_report

SIZES = {
    "noise_length": 960,
    "slides": 8,
    "stretches": 8,
    "bank_size": 16,
    "signals": 20,
    "glitch_windows": 400,
    "scatter": 100,
    "batches": 2,
    "optimum_windows": 2000,
    "optimum_signals": 50,
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
    details |= {"wall_time_length": 60.0, "cpu_time_length": 110.0}
    save_checkpoint(folder / "network.ckpt", network, details)
    details |= {"versions": {"torch": torch.__version__}}
    write_report(folder / "validation.json", {"checkpoint": details} | result)
    (folder / "metrics.csv").write_text(LOG)
    (folder / "config.yaml").write_text("steps: 150  # <not a tag>\n")
    return folder


@pytest.fixture(scope="module")
def browser():
    path = os.environ.get("CHIRPWATCH_CHROMIUM") or shutil.which("chromium")
    if path is None:
        assert "CI" not in os.environ, "CI must test the page: install chromium"
        pytest.skip("no chromium on the PATH; CHIRPWATCH_CHROMIUM may name one")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-gpu"]
        )
        yield browser
        browser.close()


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
    # Nothing hangs over a narrow screen's edge.
    assert page.evaluate("document.documentElement.scrollWidth") <= 420
    assert page.locator("#found tbody tr").count() == 17
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


def test_what_was_not_measured_is_left_out_and_told(run: Path, tmp_path) -> None:
    result = json.loads((run / "validation.json").read_text())
    for name in ("optimal", "roc", "scatter"):
        del result[name]
    (tmp_path / "validation.json").write_text(json.dumps(result))
    page = write_run_report(tmp_path).read_text()
    assert "has no such figures" in page and "were not measured" in page
    assert "There is no metrics.csv." in page
    assert page.count("<img") == 3


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("validation.json", "{", "expected JSON"),
        ("validation.json", "[]", "expected figures of 'chirpwatch train validate'"),
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


def test_half_of_the_figures_is_refused(run: Path, tmp_path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    result = json.loads((run / "validation.json").read_text())
    del result["scatter"]["score"]
    (folder / "validation.json").write_text(json.dumps(result))
    with pytest.raises(ConfigurationError, match=r"validation\.json.*score"):
        write_run_report(folder)
    with pytest.raises(ConfigurationError, match="expected the folder of a training"):
        write_run_report(tmp_path / "none")


def test_comparison_puts_seeds_of_one_network_together(run: Path, tmp_path) -> None:
    second = tmp_path / "second"
    shutil.copytree(run, second)
    result = json.loads((run / "validation.json").read_text())
    shares = []
    for text in ("0.001", "0.0001"):
        for folder, share in ((run, 0.5), (second, 0.7)):
            for entry in result["found"]["gaussian"]:
                entry["found"][text] = share
            shares.append((folder, json.dumps(result)))
    for folder, figures in shares[2:]:
        (folder / "validation.json").write_text(figures)
    narrow = tmp_path / "narrow"
    shutil.copytree(second, narrow)
    save_checkpoint(narrow / "network.ckpt", Network(Geometry(), width=8), {})
    out = tmp_path / "table.md"
    folders = [str(run), str(second), str(narrow)]
    result = CliRunner().invoke(train, ["compare", *folders, "--out", str(out)])
    assert result.exit_code == 0, result.output
    rows = [line.split(" | ") for line in out.read_text().splitlines()[4:]]
    assert len(rows) == 2 and "width" in rows[0][0]
    assert rows[0][1] == "2" and rows[1][1] == "1"
    assert rows[0][-1] == "60.0 ± 14.1 |" and rows[1][-1] == "70.0 |"
    assert float(rows[0][3]) > float(rows[1][3]) > 0
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    (narrow / "validation.json").unlink()
    result = CliRunner().invoke(train, ["compare", str(narrow), "--out", str(out)])
    assert isinstance(result.exception, ConfigurationError)


def test_numbers_of_a_log_may_be_missing(run: Path) -> None:
    from train.report import read_log

    log = read_log(run / "metrics.csv")
    assert log is not None
    assert np.isnan(log["valid_loss"]).sum() == 3
    assert log["valid_found_hour"][-1] == 0.5
