"""Strain of several detectors over the same span."""

import numpy as np
import pytest

from chirpwatch.errors import StrainError
from chirpwatch.strain import NANOSECONDS, Segment
from tests.builders import RATE, START, white_strain


def test_detectors_of_different_length_are_refused() -> None:
    data = white_strain()
    data["L1"] = data["L1"][:-1]
    with pytest.raises(StrainError, match="same number of samples"):
        Segment(START * NANOSECONDS, RATE, data)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_strain_that_is_not_finite_is_refused_with_its_time(value: float) -> None:
    data = white_strain()
    data["L1"][RATE + RATE // 2] = value
    segment = Segment(START * NANOSECONDS, RATE, data)
    assert segment.read("L1", 0, RATE).shape == (RATE,)
    with pytest.raises(StrainError, match=rf"L1 at GPS {START + 1}\.500000"):
        segment.read("L1", 0, 2 * RATE)
