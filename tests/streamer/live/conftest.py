"""Strain of live searches."""

import pytest

from tests.streamer.live.search import with_bursts


@pytest.fixture(scope="module")
def strain():
    return with_bursts()
