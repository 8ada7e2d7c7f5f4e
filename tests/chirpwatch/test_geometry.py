import pytest
from hypothesis import given
from hypothesis import strategies as st

from chirpwatch.errors import GeometryError
from chirpwatch.geometry import Geometry


def test_json_gives_back_the_same_geometry() -> None:
    geometry = Geometry(ifos=("H1", "L1", "V1"), psd_length=32)
    assert Geometry.from_json(geometry.to_json()) == geometry
    assert Geometry(psd_length=32).digest == Geometry(psd_length=32.0).digest
    assert Geometry(sample_rate=2048.0).digest == Geometry().digest  # type: ignore[arg-type]  # a float


@given(st.integers(1, 4096), st.sampled_from([2, 4, 8, 16, 32]))
def test_a_stride_is_a_whole_number_of_samples_or_an_error(
    sample_rate: int, rate: int
) -> None:
    try:
        geometry = Geometry(
            sample_rate=sample_rate, inference_sampling_rate=rate, frame_size=1
        )
    except GeometryError:
        return
    assert geometry.stride_size * rate == sample_rate


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"kernel_length": 1.0001}, "kernel_length"),
        ({"kernel_length": 0}, "kernel_length"),
        ({"inference_sampling_rate": 0}, "rates above 0"),
        ({"sample_rate": 2048.5}, "sample_rate"),
        ({"sample_rate": "2048"}, "sample_rate"),
        ({"psd_length": float("nan")}, "psd_length"),
        ({"inference_sampling_rate": 7}, "inference_sampling_rate"),
        ({"frame_size": 48}, "frame_size"),
        (
            {"sample_rate": 2050, "frame_size": 1, "inference_sampling_rate": 2}
            | {"fftlength": 0.5, "fduration": 0.5},
            "even number of samples",
        ),
        ({"highpass": 1023.6}, "between highpass and Nyquist"),
        ({"ifos": ("H1", "H1")}, "ifos"),
        ({"ifos": ()}, "ifos"),
        ({"psd_length": 60}, "psd_length"),
        ({"psd_min_length": 4}, "psd_min_length"),
        (
            {"fftlength": 8},
            "psd_refresh_length must be at least twice fftlength; found",
        ),
        ({"fduration": 4}, "fduration"),
        ({"highpass": 1024}, "highpass"),
    ],
)
def test_contradictions_are_named(change: dict[str, object], word: str) -> None:
    with pytest.raises(GeometryError, match=word):
        Geometry(**change)  # type: ignore[arg-type]  # wrong types too


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"sample_rate": 2048}'])
def test_other_json_is_refused(text: str) -> None:
    with pytest.raises(GeometryError, match="geometry"):
        Geometry.from_json(text)


def test_first_valid_score_is_where_the_first_psd_is_due() -> None:
    geometry = Geometry()
    edge = (geometry.warmup_strides + 1) * geometry.stride_size
    assert edge == geometry.psd_min_size
