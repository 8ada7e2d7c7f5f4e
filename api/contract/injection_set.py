"""Request body of an injection set."""

from typing import Annotated, Literal, Self

from pydantic import (
    ConfigDict,
    FailFast,
    Field,
    FiniteFloat,
    StringConstraints,
    model_validator,
)

from chirpwatch.api.contract import examples
from chirpwatch.api.contract.fields import TimeNs
from chirpwatch.api.contract.requests import (
    ONLY_SUCH_NAMES,
    Body,
)
from chirpwatch.volume import Population

MAX_INJECTIONS = 20_000
MAX_MASS = 1e12
"""Largest mass that is accepted, solar masses; powers of it stay finite."""

VOLUME_PARAMETERS = {"mass_1", "mass_2", "redshift"}
"""Parameters that sensitive volume needs of each injection."""


class Injection(Body):
    """A simulated signal that was added to the strain."""

    time_ns: TimeNs = Field(description="GPS time of the merger, ns")
    snr: FiniteFloat = Field(ge=0, description="Network SNR")
    parameters: dict[
        Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_]{1,64}$")], FiniteFloat
    ] = Field(
        max_length=64,
        json_schema_extra=ONLY_SUCH_NAMES,
        description="Parameters by name; masses in solar masses (detector frame), "
        "distance in Mpc, angles in radians",
    )

    @model_validator(mode="after")
    def _has_masses(self) -> Self:
        for name in ("mass_1", "mass_2"):
            if not 0 < self.parameters.get(name, 1.0) < MAX_MASS:
                raise ValueError(
                    f"{name}: expected solar masses above 0 and below {MAX_MASS:g}, "
                    f"found {self.parameters[name]:g}"
                )
        return self


class PopulationBody(Body):
    """Population that injections were drawn from: the fields of `Population`."""

    rejected: int = Field(
        ge=0, description="Exact number of draws that were too faint to be injected"
    )
    min_mass: FiniteFloat = Field(gt=0, description="Smallest mass, solar masses")
    max_mass: FiniteFloat = Field(gt=0, description="Largest mass, solar masses")
    mass_distribution: Literal["uniform", "log_uniform"] = Field(
        description="Distribution of each component mass"
    )
    source_frame: bool = Field(
        description="Whether masses are in the source frame; else detector frame"
    )
    reference_share: FiniteFloat = Field(
        ge=0,
        le=1,
        description="Fraction of draws with exactly the reference masses",
    )
    reference_masses: Annotated[
        list[FiniteFloat], Field(min_length=2, max_length=2)
    ] = Field(description="Reference masses, solar masses, in the frame of the others")
    max_redshift: FiniteFloat = Field(
        gt=0,
        le=20,
        description="Largest redshift; redshifts are uniform in comoving volume "
        "(Planck18)",
    )
    time_dilation: bool = Field(
        description="Whether draws follow 1 / (1 + redshift) for time dilation"
    )

    def population(self) -> Population:
        """Convert to a `Population`."""
        values = self.model_dump(exclude={"rejected"})
        return Population(**values | {"reference_masses": tuple(self.reference_masses)})


class InjectionSet(Body):
    """All injections of a set, sent at once so that none can go missing."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.INJECTIONS]})

    injections: Annotated[list[Injection], FailFast()] = Field(
        max_length=MAX_INJECTIONS, description="The injections, in any order"
    )
    population: PopulationBody | None = Field(
        None,
        description="Population that the injections were drawn from. Sensitive volume "
        "needs it, together with `mass_1`, `mass_2` (detector frame) and `redshift` of "
        "each injection. Null: unknown, or not drawn in volume",
    )

    @model_validator(mode="after")
    def _has_what_a_volume_needs(self) -> Self:
        if self.population is not None:
            for index, injection in enumerate(self.injections):
                missing = VOLUME_PARAMETERS - injection.parameters.keys()
                if missing:
                    raise ValueError(
                        f"injection {index} of a population: expected "
                        f"{', '.join(sorted(VOLUME_PARAMETERS))}, missing "
                        f"{', '.join(sorted(missing))}"
                    )
                redshift = injection.parameters["redshift"]
                if not 0 < redshift <= self.population.max_redshift * (1 + 1e-9):
                    raise ValueError(
                        f"injection {index} of a population: expected a redshift above "
                        f"0 and up to {self.population.max_redshift:g}, found "
                        f"{redshift:g}"
                    )
        return self
