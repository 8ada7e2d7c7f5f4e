"""The results service as a process, its client, and its page in a browser."""

import pytest

from chirpwatch.api.process import ApiProcess


@pytest.fixture(scope="module")
def api(tmp_path_factory, new_database):
    folder = tmp_path_factory.mktemp("api")
    with ApiProcess(new_database(), log=folder / "api.log") as process:
        yield process


@pytest.fixture(scope="module")
def client(api):
    with api.client() as client:
        yield client


@pytest.fixture
def page(browser, api):
    """A page; console messages, errors, and requests to other hosts fail the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "request",
        lambda request: (
            request.url.removeprefix("blob:").startswith(api.url)
            or complaints.append(request.url)
        ),
    )
    yield page
    context.close()
    assert complaints == []
