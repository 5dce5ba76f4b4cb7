"""Whether this machine can build what Triton builds: a small C library that Python loads. Found out by trying.

Compiled layers need it (`compiled_layers.py`); the image build checks it at its end. Imports no torch.
"""

import os
import shutil
import subprocess
import sysconfig
import tempfile
from pathlib import Path

_SOURCE = """#include <Python.h>
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, .m_name = "tried", .m_size = -1};
PyMODINIT_FUNC PyInit_tried(void) { return PyModule_Create(&module); }
"""
_SECONDS = 60


def why_none() -> str | None:
    """Why a C library for Python cannot be built and loaded here, or None if it can.

    Compiler, headers and flags are those that Triton would use; the folder is on the same file system as its cache.
    """
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return "there is no C compiler"
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder) / "tried.c", Path(folder) / "tried.so"
        source.write_text(_SOURCE, encoding="utf-8")
        flags = ["-O3", "-shared", "-fPIC", f"-I{sysconfig.get_path('include')}"]
        try:
            built = subprocess.run(  # noqa: S603 - the compiler of this machine
                [compiler, source, *flags, "-o", library], capture_output=True, text=True, timeout=_SECONDS, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"the C compiler {compiler} cannot be run: {type(error).__name__}"
        if built.returncode != 0:
            said = next((line for line in built.stderr.splitlines() if "error" in line), "it says nothing")
            return f"the C compiler {compiler} builds no library for Python: {said[:200]}"
        return _why_not_loaded(library)


def _why_not_loaded(library: Path) -> str | None:
    from importlib.machinery import ExtensionFileLoader
    from importlib.util import module_from_spec, spec_from_loader

    spec = spec_from_loader("tried", ExtensionFileLoader("tried", str(library)))
    assert spec is not None  # noqa: S101 - it has a loader
    try:
        module_from_spec(spec)
    except ImportError as error:  # for example, a scratch folder mounted noexec
        return f"what the C compiler builds cannot be loaded: {str(error)[:200]}"
    return None
