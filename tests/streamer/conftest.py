"""The results service that receives the programs' results."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from chirpwatch.api.process import ApiProcess


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiProcess]:
    folder = tmp_path_factory.mktemp("api")
    with ApiProcess(folder / "results.db", log=folder / "api.log") as api:
        yield api


@pytest.fixture
def token(api: ApiProcess, tmp_path: Path) -> Path:
    """The file with the service's token."""
    path = tmp_path / "token"
    path.write_text(api.token)
    return path
