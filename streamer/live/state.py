"""How far a live search got: on disk before anything that follows from it."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

from chirpwatch.atomic import replacing
from chirpwatch.errors import ConfigurationError


@dataclass(frozen=True)
class LiveState:
    """How far a live search got.

    Attributes:
        run: The run.
        model: Digest of the model.
        until_ns: Right edge of the last score that was sent, GPS ns.
        stream: Stream of the last chunk; empty before the first.
        number: Its number.
        chunk: The chunk itself. It is written here before it is sent: a process that
            ends in between sends the same again.
    """

    run: str
    model: str
    until_ns: int = 0
    stream: str = ""
    number: int = -1
    chunk: dict[str, Any] | None = None

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """What was written; none where nothing was.

        Raises:
            ConfigurationError: It is not what was written.
        """
        try:
            return cls(**json.loads(path.read_text()))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            raise ConfigurationError(
                f"{path}: expected the state of a live search, found something else "
                f"({error}); move it away to begin a new run"
            ) from None

    def write(self, path: Path) -> None:
        """Write it, whole or not at all."""
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(asdict(self)))

    def after(
        self, stream: str, number: int, until_ns: int, chunk: dict[str, Any]
    ) -> Self:
        """The state with one more chunk."""
        return replace(
            self, stream=stream, number=number, until_ns=until_ns, chunk=chunk
        )
