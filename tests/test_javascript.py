"""The page's JavaScript beside what `make test` checks of it with deno."""

from chirpwatch.api.web.routes.page import STATIC
from tests import page_types


def test_types_are_those_of_the_api() -> None:
    expected = page_types.declarations(page_types.description())
    assert page_types.FILE.read_text() == expected, (
        f"{page_types.FILE} is not what the API's description gives; "
        "`python -m tests.page_types` writes it"
    )


def test_no_line_is_longer_than_100_columns() -> None:
    # The formatter leaves a long text in one line.
    long = [
        f"{path.name}:{number}"
        for path in STATIC.glob("*.js")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if len(line) > 100
    ]
    assert not long
