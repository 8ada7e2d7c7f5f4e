"""Example request bodies, which the OpenAPI description shows."""

from typing import Any

T0 = 1_264_316_116_000_000_000
"""GPS time, ns."""

STRIDE = 125_000_000
"""Time between two scores, ns."""

GEOMETRY: dict[str, Any] = {
    "ifos": ["H1", "L1"],
    "sample_rate": 2048,
    "kernel_length": 1.0,
    "inference_sampling_rate": 8.0,
    "frame_size": 32,
    "psd_length": 64.0,
    "psd_min_length": 8.0,
    "psd_refresh_length": 8.0,
    "fftlength": 2.0,
    "fduration": 1.0,
    "highpass": 32.0,
}
RUN: dict[str, Any] = {
    "name": "O3a, second week",
    "model": "9f2c4b7e01ad5c33",
    "geometry": GEOMETRY,
    "simulated": False,
    "data": "background.hdf5: 12 segments, 41230 s",
    "planned_background": 31_557_600.0,
}
UPDATE: dict[str, Any] = {
    "state": "running",
    "throughput": 177.0,
    "latency_ms": {"p50": 6.4, "p90": 8.0, "p99": 14.0, "max": 31.0},
}
STREAM: dict[str, Any] = {
    "kind": "injections",
    "shifts": {"H1": 0.0, "L1": 0.0},
    "segment": "1264316116-4096",
    "injection_set": "bbh",
}
CHUNK: dict[str, Any] = {
    "start_ns": T0 + STRIDE,
    "stride_ns": STRIDE,
    "valid": [True, True, True, False],
    "scores": [-7.1, 4.2, -3.0, 0.0],
    "events": [{"time_ns": T0 + STRIDE, "statistic": 4.2}],
    "last": False,
}
BLOCK: dict[str, Any] = {
    "start_ns": T0,
    "strides": 8192,
    "stride_ns": STRIDE,
    "slides": [
        {
            "shifts": {"H1": 0.0, "L1": 4.09375},
            "valid": [[63, 8192]],
            "strides": [412, 977],
            "delays": [0.91, 1.02],
            "statistics": [-4.7, -2.3],
        }
    ],
}
INJECTIONS: dict[str, Any] = {
    "injections": [
        {
            "time_ns": T0 + 44_000_000_000,
            "snr": 9.3,
            "parameters": {
                "mass_1": 38.1,
                "mass_2": 33.9,
                "redshift": 0.11,
                "distance": 528.0,
            },
        }
    ],
    "population": {
        "rejected": 1904,
        "min_mass": 5.0,
        "max_mass": 100.0,
        "mass_distribution": "log_uniform",
        "source_frame": True,
        "reference_share": 0.0,
        "reference_masses": [35.0, 35.0],
        "max_redshift": 1.0,
        "time_dilation": False,
    },
}
VETO: dict[str, Any] = {
    "ifos": ["L1"],
    "reason": "thunderstorm",
    "segments": [[T0 + 84_000_000_000, T0 + 144_000_000_000]],
}
STRAIN: dict[str, Any] = {
    "sample_rate": 2048,
    "strain": {"H1": "AAAAAAAAgD8=", "L1": "AACAPwAAAAA="},
}
