"""The peers' environments, each created once from its own lock: their requirements conflict."""

import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

HERE = Path(__file__).parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "finetune-operator"


class NotInstalledError(Exception):
    """A peer could not be installed; says why."""


def python_of(program: str) -> Path:
    """The Python that a contender's program runs in.

    Raises:
        NotInstalledError: its packages are unavailable or conflict.
    """
    lock = HERE / "locks" / f"{program}.txt"
    if not lock.is_file():
        return Path(sys.executable)
    folder = CACHE / f"bench-{program}-{sha256(lock.read_bytes()).hexdigest()[:12]}"
    python = folder / "bin/python"
    if not (folder / "done").is_file():
        tools = subprocess.run(["scripts/python-tools.sh"], check=True, capture_output=True, text=True).stdout.strip()
        uv = Path(tools) / "bin/uv"
        subprocess.run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, folder], check=True)
        install: list[str | Path] = [uv, "pip", "sync", "--quiet", "--require-hashes", "--python", python, lock]
        done = subprocess.run(install, env=_settings(), capture_output=True, text=True, check=False)
        if done.returncode:
            raise NotInstalledError((done.stderr.strip() or "uv failed").rpartition("\n")[2])
        (folder / "done").touch()
    return python


def _settings() -> dict[str, str]:
    """uv does not read pip's settings: pass on a configured mirror."""
    mirror = os.environ.get("PIP_INDEX_URL")
    return {"UV_HTTP_TIMEOUT": "300"} | ({"UV_DEFAULT_INDEX": mirror} if mirror else {}) | dict(os.environ)
