"""A PostgreSQL server for the tests, on the loopback address, in its own folder."""

import os
import pwd
import secrets
import shutil
import subprocess
import time
from pathlib import Path

from chirpwatch.process import free_ports

USER = "postgres"


def find_programs() -> Path | None:
    """Folder of PostgreSQL's server programs, which Debian keeps off the PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    on_path = shutil.which("initdb")
    if found:
        return found[-1].parent
    return Path(on_path).resolve().parent if on_path else None


class PostgresServer:
    """A PostgreSQL server in a new folder; a context manager."""

    def __init__(self, folder: Path) -> None:
        programs = find_programs()
        assert programs is not None, "PostgreSQL is not installed"
        self._programs, self._folder = programs, folder
        # PostgreSQL refuses to run as root; its user must own the folder.
        self._user = USER if os.geteuid() == 0 else None
        folder.mkdir(parents=True)
        if self._user:
            account = pwd.getpwnam(self._user)
            os.chown(folder, account.pw_uid, account.pw_gid)

    def __enter__(self) -> "PostgresServer":
        data = self._folder / "data"
        self._run("initdb", "-D", data, "-A", "trust", "-U", USER, "-E", "UTF8")
        (self.port,) = free_ports(1)
        options = {"listen_addresses": "127.0.0.1", "fsync": "off", "port": self.port}
        self._log = open(self._folder / "log", "wb")
        self._server = subprocess.Popen(
            [
                str(self._programs / "postgres"),
                *("-D", str(data), "-k", str(self._folder)),
                *(f"--{name}={value}" for name, value in options.items()),
            ],
            user=self._user,
            cwd=self._folder,
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )
        deadline = time.monotonic() + 30
        while self._run("pg_isready", *self._where, check=False).returncode:
            assert time.monotonic() < deadline, (self._folder / "log").read_text()
            assert self._server.poll() is None, (self._folder / "log").read_text()
            time.sleep(0.05)
        return self

    def __exit__(self, *_: object) -> None:
        # SIGINT: a fast shutdown, which closes connections.
        self._server.send_signal(2)
        self._server.wait(30)
        self._log.close()

    @property
    def _where(self) -> tuple[str, ...]:
        return ("-h", "127.0.0.1", "-p", str(self.port), "-U", USER)

    def _run(self, program, *arguments, check=True):
        return subprocess.run(
            [str(self._programs / program), *map(str, arguments)],
            check=check,
            user=self._user,
            cwd=self._folder,
            capture_output=True,
        )

    def new_database(self, encoding: str = "UTF8") -> str:
        """Create an empty database and return its URL."""
        name = f"chirpwatch_{secrets.token_hex(6)}"
        options = ("--template=template0", f"--encoding={encoding}", "--locale=C")
        self._run("createdb", *self._where, *options, name)
        return f"postgresql+psycopg://{USER}@127.0.0.1:{self.port}/{name}"
