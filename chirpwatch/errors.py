"""The errors that chirpwatch raises on purpose.

Every message says what was expected, what was found, where, and what to do. The
command line prints the message alone; a traceback means a bug.
"""


class ChirpwatchError(Exception):
    """Base of every error that a user can act on."""


class GeometryError(ChirpwatchError):
    """A length, rate or detector list that cannot describe an analysis."""


class ConfigurationError(ChirpwatchError):
    """An option, or options together, that cannot be."""


class StrainError(ChirpwatchError):
    """Strain that is missing, malformed, not finite or too short."""


class SignalError(ChirpwatchError):
    """A signal file that is missing, malformed or of another geometry."""


class ShiftError(ChirpwatchError):
    """A timeslide that the data cannot give."""


class ModelError(ChirpwatchError):
    """A model or model repository that is broken or of another geometry."""


class ServerError(ChirpwatchError):
    """The inference server did not start, is not there, or did not answer."""


class ApiError(ChirpwatchError):
    """The results API is not there or refused what it was sent."""


class StatisticsError(ChirpwatchError):
    """A question that the background at hand cannot answer."""
