"""The Triton that the ``nvidia-pytriton`` wheel carries, made ready to run."""

import ctypes.util
import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
import sysconfig
import tempfile
from dataclasses import dataclass
from pathlib import Path

from chirpwatch.errors import ServerError

BACKEND = Path(__file__).parent / "backends" / "onnxruntime" / "model.py"


@dataclass(frozen=True)
class Runtime:
    """Where the server's parts are.

    Attributes:
        executable: ``tritonserver``.
        backends: Directory of backends, ours among them.
        environment: Environment variables the server needs.
    """

    executable: Path
    backends: Path
    environment: dict[str, str]


def find_runtime() -> Runtime:
    """Find the wheel's server and lay out its backends in the user's cache directory.

    Triton refuses backend libraries that are links out of the backend directory, and
    the Python stub must be that of the running Python's version; so they are copied,
    once for each version of the wheel and of our backend.

    Raises:
        ServerError: Not Linux on x86-64, no wheel, or no shared libpython.
    """
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        raise ServerError(
            "the embedded Triton server runs on Linux x86_64, found "
            f"{platform.system()} {platform.machine()}; use docker compose, or give "
            "the address of a server elsewhere"
        )
    specification = importlib.util.find_spec("pytriton")
    if specification is None or specification.origin is None:
        raise ServerError(
            "the embedded Triton server needs the package nvidia-pytriton, which is "
            "not installed; install chirpwatch with pip"
        )
    package = Path(specification.origin).parent
    triton = package / "tritonserver"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = triton / "python_backend_stubs" / version / "triton_python_backend_stub"
    if not stub.exists():
        raise ServerError(
            f"nvidia-pytriton has no backend for Python {version}; use Python 3.11"
        )
    library = Path(sysconfig.get_config_var("LIBDIR") or "/usr/lib")
    name = f"libpython{version}.so.1.0"
    if not (library / name).exists() and not ctypes.util.find_library(
        f"python{version}"
    ):
        raise ServerError(
            f"the embedded Triton server needs {name}, which this Python "
            f"({sys.executable}) does not bring; install it, on Debian and Ubuntu "
            f"with: apt-get install libpython{version}"
        )

    parts = {
        "python/libtriton_python.so": triton / "backends/python/libtriton_python.so",
        "python/triton_python_backend_utils.py": triton
        / "backends/python/triton_python_backend_utils.py",
        "python/triton_python_backend_stub": stub,
        "onnxruntime/model.py": BACKEND,
    }
    key = hashlib.sha256(
        f"{importlib.metadata.version('nvidia-pytriton')} {version} ".encode()
        + BACKEND.read_bytes()
    ).hexdigest()[:12]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    backends = cache / "chirpwatch" / f"triton-{key}"
    if not backends.exists():
        backends.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=backends.parent) as temporary:
            for target, source in parts.items():
                (Path(temporary) / "new" / target).parent.mkdir(
                    parents=True, exist_ok=True
                )
                shutil.copy(source, Path(temporary) / "new" / target)
            try:
                (Path(temporary) / "new").rename(backends)
            except OSError:
                # Another process laid out the same files first.
                if not backends.exists():
                    raise

    libraries = [package.parent / "nvidia_pytriton.libs", library]
    environment = {
        "LD_LIBRARY_PATH": os.pathsep.join(
            [*map(str, libraries), os.environ.get("LD_LIBRARY_PATH", "")]
        ).rstrip(os.pathsep),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        # The stub is a program of its own and knows no virtual environment.
        "PYTHONPATH": str(package.parent),
        "OMP_NUM_THREADS": "1",
    }
    return Runtime(triton / "bin" / "tritonserver", backends, environment)
