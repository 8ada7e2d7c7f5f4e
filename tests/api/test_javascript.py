"""Checks of the page's JavaScript, beside those with deno in `make test`."""

from datetime import datetime, timedelta

from astropy.time import Time
from playwright.sync_api import Browser

from chirpwatch.api.process import ApiProcess
from chirpwatch.api.web.routes.page import STATIC
from chirpwatch.utc import unix_offsets, unix_time
from tests.api import page_types

EPOCH = datetime(1970, 1, 1)
# Around each leap second, but not within it: Unix time has no leap seconds.
GPS_TIMES = [0.5, 1_187_008_882.4, 1_451_606_400.0] + [
    since + after for since, _ in unix_offsets()[1:] for after in (-1e5, -0.5, 1, 1e5)
]


def iso(gps: float) -> str:
    """UTC from astropy, to a tenth of a second."""
    return Time(gps, format="gps", precision=1).utc.iso


def test_types_match_the_api() -> None:
    expected = page_types.declarations(page_types.description())
    assert page_types.FILE.read_text() == expected, (
        f"{page_types.FILE} is not what the API's description gives; "
        "`python -m tests.api.page_types` writes it"
    )


def test_no_line_is_longer_than_100_columns() -> None:
    # The formatter does not break long strings.
    long = [
        f"{path.name}:{number}"
        for path in STATIC.glob("*.js")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if len(line) > 100
    ]
    assert not long


def test_unix_time_follows_astropys_leap_seconds() -> None:
    for gps in GPS_TIMES:
        utc = EPOCH + timedelta(seconds=unix_time(gps))
        assert f"{utc:%F %T}.{utc.microsecond // 100_000}" == iso(gps)


def test_the_page_writes_utc_as_astropy_does(browser: Browser, tmp_path) -> None:
    with ApiProcess(tmp_path / "results.db", log=tmp_path / "api.log") as api:
        page = browser.new_page()
        page.goto(api.url)
        written = page.evaluate(
            "async (times) => {"
            "  const { utc } = await import('/static/units.js');"
            "  return times.map((gps) => utc(gps, 1));"
            "}",
            GPS_TIMES,
        )
        page.close()
    assert written == [iso(gps) for gps in GPS_TIMES]
