"""What was compiled in one clone serves in another, where files have other times and other places."""

import marshal
import os
import py_compile
import runpy
from pathlib import Path

import pytest

SCRIPT = runpy.run_path(str(Path(__file__).parents[2] / "scripts" / "own_bytecode.py"))
HEADER = SCRIPT["HEADER"]


@pytest.mark.parametrize("by", [py_compile.PycInvalidationMode.TIMESTAMP, py_compile.PycInvalidationMode.CHECKED_HASH])
@pytest.mark.parametrize(("changed", "restored"), [("", 1), ("y = 2\n", 0)], ids=["the same", "another content"])
def test_it_fits_a_clone_of_the_same_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: py_compile.PycInvalidationMode, changed: str, restored: int
) -> None:
    first, second = (tmp_path / clone / "tests" / "one.py" for clone in ("first", "second"))
    for source, more in ((first, ""), (second, changed)):
        source.parent.mkdir(parents=True)
        source.write_text(f"def x():\n    return 1\n{more}")
    os.utime(second, (10, 10))
    compiled = py_compile.compile(str(first), invalidation_mode=by)
    monkeypatch.chdir(tmp_path / "first")
    SCRIPT["keep"](tmp_path / "kept")
    monkeypatch.chdir(tmp_path / "second")
    SCRIPT["restore"](tmp_path / "kept")
    found = list(second.parent.glob("__pycache__/*.pyc"))
    assert len(found) == restored
    for one in found:
        assert one.name == Path(str(compiled)).name
        expected = Path(py_compile.compile(str(second), str(tmp_path / "again.pyc"), invalidation_mode=by) or "")
        assert one.read_bytes()[:HEADER] == expected.read_bytes()[:HEADER]
        assert marshal.loads(one.read_bytes()[HEADER:]) == marshal.loads(expected.read_bytes()[HEADER:])
        assert marshal.loads(one.read_bytes()[HEADER:]).co_consts[0].co_filename == str(second)
