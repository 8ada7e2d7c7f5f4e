"""Errors that a user can act on.

Each message says what was expected, what was found, where, and what to do. The command
line prints the message without a traceback; a traceback means a bug.
"""


class ChirpwatchError(Exception):
    """Base class of all errors that a user can act on."""


class GeometryError(ChirpwatchError):
    """Inconsistent or invalid lengths, rates or detectors in a ``Geometry``."""


class ConfigurationError(ChirpwatchError):
    """Invalid option or setting, or options that exclude each other."""


class StrainError(ChirpwatchError):
    """Strain that is missing, malformed, not finite or too short."""


class SignalError(ChirpwatchError):
    """Signals that are missing, malformed or do not match the analysis's geometry."""


class ShiftError(ChirpwatchError):
    """Timeslides that are impossible with the given strain."""


class ModelError(ChirpwatchError):
    """Model or model repository that is invalid or has another geometry."""


class ServerError(ChirpwatchError):
    """The inference server cannot be started or reached, or gives an invalid reply."""


class ApiError(ChirpwatchError):
    """The results API cannot be started or reached, or refuses a request."""


class StatisticsError(ChirpwatchError):
    """Too few data, or an invalid argument, for a statistical estimate."""
