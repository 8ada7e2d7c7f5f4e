"""A run's export file has the same values as the API's answers."""

import h5py
import numpy as np
import pandas as pd
import pytest

from chirpwatch.api.client import ApiRefused
from chirpwatch.api.contract.injection_set import (
    Injection,
    InjectionSet,
)
from chirpwatch.api.contract.requests import (
    RunUpdate,
    Veto,
)
from tests.builders import (
    GPS,
    RUN,
    SECOND,
    ZERO_LAG,
    block,
    chunk,
    injected,
    slide,
)


def test_the_file_has_the_values_of_the_apis_answers(client, tmp_path):
    run = "whole"
    client.put_run(run, RUN)
    client.put_stream(run, "zl", ZERO_LAG)
    client.put_chunk(run, "zl", 0, chunk(0, [(2.0, 1.5), (6.0, 9.0)]))
    rng = np.random.default_rng(1)
    for number in range(3):
        events = [
            (stride, 0.5, float(np.float32(rng.normal())))
            for stride in range(70, 1000, 80)
        ]
        client.put_block(
            run,
            number,
            block(
                slide(4.0, events, valid=[(64, 1024)]),
                slide(9.0, events[::2], valid=[(64, 1024)]),
                number=number,
            ),
        )
    injections = [
        Injection(
            time_ns=GPS * SECOND + round(after * SECOND),
            snr=8.0,
            parameters={"mass_1": 30.0 + after},
        )
        for after in (2.0, 6.0)
    ]
    client.put_injections(run, "set", InjectionSet(injections=injections))
    client.put_stream(run, "inj", injected("set"))
    client.put_chunk(run, "inj", 0, chunk(0, [(6.1, 9.0)], last=True))
    client.update_run(run, RunUpdate(state="complete"))
    segment = [(GPS + 20) * SECOND, (GPS + 40) * SECOND]
    client.put_veto(run, "v", Veto(segments=[segment]))
    path = tmp_path / "run.hdf5"
    client.export(run, path)

    candidates = client.candidates(run)
    background = client.background(run)
    loud = client.events(run, "background", limit=1000)
    with h5py.File(path) as file:
        assert dict(file.attrs)["model"] == RUN.model
        assert file.attrs["vetoes"].tolist() == ["v"]
        zero_lag = file["zero_lag/events"][()]
        assert zero_lag["statistic"].tolist() == [9.0, 1.5]
        assert zero_lag["far_per_year"].tolist() == [
            one.far_per_year for one in candidates.candidates
        ]
        assert zero_lag["saturated"].tolist() == [1, 0]
        assert file["zero_lag/events"].attrs["livetime"] == candidates.livetime
        assert file["background"].attrs["livetime"] == background.livetime
        events = file["background/events"][()]
        assert len(events) == background.events == loud.total < 54
        assert sorted(events["statistic"].tolist()) == sorted(
            one.statistic for one in loud.events
        )
        assert sorted(events["time_ns"].tolist()) == sorted(
            one.time_ns for one in loud.events
        )
        rows = file["injections"][()]
        assert rows["fate"].tolist() == [b"no_event", b"event"]
        assert rows["event_statistic"][1] == 9.0
        assert rows["parameter_mass_1"].tolist() == [32.0, 36.0]
    slides = pd.read_hdf(path, "background/slides")
    assert slides["livetime"].sum() == pytest.approx(background.livetime)
    assert sorted(slides["shift_L1"]) == [4.0, 9.0]
    table = pd.read_hdf(path, "background/events")
    assert len(table) == background.events


def test_the_export_of_an_empty_and_of_an_unknown_run(client, tmp_path):
    client.put_run("empty", RUN)
    client.export("empty", tmp_path / "empty.hdf5")
    with h5py.File(tmp_path / "empty.hdf5") as file:
        assert len(file["background/events"]) == len(file["zero_lag/events"]) == 0
    with pytest.raises(ApiRefused, match="nothing"):
        client.export("nothing", tmp_path / "nothing.hdf5")
    assert [path.name for path in tmp_path.iterdir()] == ["empty.hdf5"]
