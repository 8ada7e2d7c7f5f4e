"""Request bodies for the results API: a replay's run and injection sets."""

import json
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from chirpwatch.api.contract.injection_set import (
    Injection,
    InjectionSet,
    PopulationBody,
)
from chirpwatch.api.contract.requests import GeometryBody, Run
from chirpwatch.errors import SignalError
from chirpwatch.geometry import Geometry
from chirpwatch.signals import ProjectedSignals
from chirpwatch.strain import Segment
from chirpwatch.streamer.background.plan import Plan
from chirpwatch.text import one_line


def run_body(
    name: str,
    model: str,
    geometry: Geometry,
    segments: Sequence[Segment],
    plan: Plan | None,
) -> Run:
    """Request body of a replay's run.

    Args:
        name: Name for people.
        model: Digest of the served models.
        geometry: The analysis.
        segments: The strain.
        plan: Plan of the timeslides, or None.
    """
    # Only file names: the results must not publish local directories.
    sources = sorted({Path(segment.source).name for segment in segments})
    return Run(
        name=one_line(name),
        model=model,
        geometry=GeometryBody.of(geometry),
        simulated=any(segment.simulated for segment in segments),
        data=one_line(
            f"{', '.join(sources)}: {len(segments)} segment(s), "
            f"{sum(segment.duration for segment in segments):g} s"
        ),
        planned_background=plan.livetime if plan else None,
    )


def injections_body(signals: ProjectedSignals) -> InjectionSet:
    """Request body of an injection set.

    Raises:
        SignalError: A signal's time, SNR or parameters are outside the API's limits.
    """
    try:
        injections = [
            Injection(
                time_ns=int(signals.gps_time_ns[i]),
                snr=float(signals.parameters["snr"][i]),
                parameters={
                    name: float(column[i])
                    for name, column in signals.parameters.items()
                    if name != "snr"
                },
            )
            for i in range(len(signals))
        ]
        return InjectionSet(injections=injections, population=_population(signals))
    except ValidationError as error:
        raise SignalError(
            f"expected signals within the limits of the results API, found: {error}"
        ) from None


def _population(signals: ProjectedSignals) -> PopulationBody | None:
    """The population, if `chirpwatch` drew the signals by volume; otherwise None."""
    settings = json.loads(signals.attributes.get("settings", "{}"))
    names = PopulationBody.model_fields.keys() - {"rejected"}
    if not names <= settings.keys() or settings.get("snr_range") is not None:
        return None
    values = {name: settings[name] for name in names}
    body = json.dumps(values | {"rejected": signals.num_rejected})
    return PopulationBody.model_validate_json(body)
