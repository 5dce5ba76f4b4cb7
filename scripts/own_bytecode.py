"""`keep` puts what Python and pytest have compiled of this project's own files into a folder, `restore` fetches it.

A fresh clone has none of it, and all workers of the tests compile the same files at once: eight seconds each. What is
kept goes by a file's name and content, and is given the time and the place of the file in this clone.
"""

import hashlib
import marshal
import sys
from collections.abc import Iterator
from importlib.util import MAGIC_NUMBER
from pathlib import Path
from types import CodeType

FOLDERS = ("operator", "trainer_image", "tests", "demo", "bench")
HEADER = 16
"""Bytes before the code: Python's magic number, how it is found to be old, and the source's time and size or hash."""
BY_HASH = (3).to_bytes(4, "little")
"""pytest's way: it looks at the source's hash."""


def sources() -> Iterator[tuple[Path, str]]:
    """Each file with the name under which what was compiled of it is kept."""
    for folder in FOLDERS:
        for path in Path(folder).rglob("*.py"):
            yield path, hashlib.sha256(f"{path}\n".encode() + path.read_bytes()).hexdigest()


def header(source: Path) -> bytes:
    """What Python expects of bytecode that fits the source."""
    stat = source.stat()
    numbers = (0, int(stat.st_mtime), stat.st_size)
    return MAGIC_NUMBER + b"".join((number & 0xFFFFFFFF).to_bytes(4, "little") for number in numbers)


def placed(code: CodeType, name: str) -> CodeType:
    """The same code, of the file with that name: tracebacks show its lines."""
    inner = tuple(placed(one, name) if isinstance(one, CodeType) else one for one in code.co_consts)
    return code.replace(co_filename=name, co_consts=inner)


def keep(kept: Path) -> None:
    """Of each file, what fits it."""
    kept.mkdir(parents=True, exist_ok=True)
    for source, name in sources():
        for compiled in source.parent.glob(f"__pycache__/{source.stem}.*.pyc"):
            content = compiled.read_bytes()
            if content[4:8] == BY_HASH or content.startswith(header(source)):
                (kept / f"{name}{compiled.name.removeprefix(source.stem)}").write_bytes(content)


def restore(kept: Path) -> None:
    """To each file, what was compiled of the same content."""
    found: dict[str, list[Path]] = {}
    for one in kept.glob("*.pyc"):
        found.setdefault(one.name.partition(".")[0], []).append(one)
    for source, name in sources():
        for one in found.get(name, ()):
            content = one.read_bytes()
            if not content.startswith(MAGIC_NUMBER):
                continue  # of another Python
            code = placed(marshal.loads(content[HEADER:]), str(source.resolve()))  # noqa: S302 - of the user's own cache
            compiled = source.parent / "__pycache__" / f"{source.stem}.{one.name.partition('.')[2]}"
            compiled.parent.mkdir(exist_ok=True)
            head = content[:HEADER] if content[4:8] == BY_HASH else header(source)
            compiled.write_bytes(head + marshal.dumps(code))


if __name__ == "__main__":
    {"keep": keep, "restore": restore}[sys.argv[1]](Path(sys.argv[2]))
