"""Progress of a live search, stored before each chunk is sent."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

from chirpwatch.atomic import replacing
from chirpwatch.errors import ConfigurationError


@dataclass(frozen=True)
class LiveState:
    """Progress of a live search.

    Attributes:
        run: Identifier of the run.
        model: Digest of the model.
        until_ns: Right edge of the last score that was sent, GPS ns.
        stream: Stream of the last chunk; empty before the first.
        number: Number of the last chunk in its stream.
        chunk: The last chunk. It is stored before it is sent, so that a process that
            starts after a crash in between sends the same chunk.
    """

    run: str
    model: str
    until_ns: int = 0
    stream: str = ""
    number: int = -1
    chunk: dict[str, Any] | None = None

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """Read the state from a file; return None if the file does not exist.

        Raises:
            ConfigurationError: The file is not a state.
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
        """Write the state to a file, atomically."""
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(asdict(self)))

    def after(
        self, stream: str, number: int, until_ns: int, chunk: dict[str, Any]
    ) -> Self:
        """The state after a further chunk."""
        return replace(
            self, stream=stream, number=number, until_ns=until_ns, chunk=chunk
        )
