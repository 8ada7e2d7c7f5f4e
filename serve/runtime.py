"""Locates the Triton server in the ``nvidia-pytriton`` wheel and prepares it to run."""

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
"""Our Python-based backend for ONNX models, which the wheel's Triton lacks."""


@dataclass(frozen=True)
class Runtime:
    """Paths and environment with which the server runs.

    Attributes:
        executable: Path of ``tritonserver``.
        backends: Directory of its backends, including ours.
        environment: Environment variables that the server needs.
    """

    executable: Path
    backends: Path
    environment: dict[str, str]


def find_runtime() -> Runtime:
    """Find the wheel's server, and install its backends in the user's cache directory.

    Raises:
        ServerError: The platform is not Linux on x86-64, the wheel is not installed or
            has no backend for this Python, or libpython is missing.
    """
    package = _find_package()
    triton = package / "tritonserver"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = triton / "python_backend_stubs" / version / "triton_python_backend_stub"
    if not stub.exists():
        raise ServerError(
            "expected a Python that nvidia-pytriton has a backend for, found "
            f"{version} ({sys.executable}); use Python 3.11"
        )
    library = Path(sysconfig.get_config_var("LIBDIR") or "/usr/lib")
    name = f"libpython{version}.so.1.0"
    if not (library / name).exists() and not ctypes.util.find_library(
        f"python{version}"
    ):
        raise ServerError(
            f"the embedded Triton server needs {name}, which this Python "
            f"({sys.executable}) does not include; on Debian and Ubuntu, install it "
            f"with: apt-get install libpython{version}"
        )
    libraries = [package.parent / "nvidia_pytriton.libs", library]
    environment = {
        "LD_LIBRARY_PATH": os.pathsep.join(
            [*map(str, libraries), os.environ.get("LD_LIBRARY_PATH", "")]
        ).rstrip(os.pathsep),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        # The stub embeds Python and does not find the virtual environment by itself.
        "PYTHONPATH": str(package.parent),
        "OMP_NUM_THREADS": "1",
    }
    backends = _install_backends(triton, stub, version)
    return Runtime(triton / "bin" / "tritonserver", backends, environment)


def _find_package() -> Path:
    """Directory of the installed package ``pytriton``."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        raise ServerError(
            "the embedded Triton server runs on Linux x86_64, found "
            f"{platform.system()} {platform.machine()}; use docker compose, or give "
            "the address of a running server (--triton)"
        )
    specification = importlib.util.find_spec("pytriton")
    if specification is None or specification.origin is None:
        raise ServerError(
            "the embedded Triton server needs the package nvidia-pytriton, which is "
            "not installed; install chirpwatch with pip"
        )
    return Path(specification.origin).parent


def _install_backends(triton: Path, stub: Path, version: str) -> Path:
    """Copy the backends to the user's cache directory, unless they are there.

    Triton refuses backend libraries that are symbolic links out of the backend
    directory, and the Python stub must match the running Python. So the files are
    copied, once for each version of the wheel, of Python and of our backend.

    Args:
        triton: The wheel's directory ``tritonserver``.
        stub: The Python stub.
        version: Version of the running Python, such as ``3.11``.

    Returns:
        The backend directory.
    """
    files = {
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
            new = Path(temporary) / "new"
            for target, source in files.items():
                (new / target).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, new / target)
            try:
                new.rename(backends)
            except OSError:
                # Unless another process has installed the same files meanwhile.
                if not backends.exists():
                    raise
    return backends
