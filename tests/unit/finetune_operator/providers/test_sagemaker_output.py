"""What an archive of others tells of its model, and how little of it is read for that."""

import gzip
import io
import random
import tarfile
from collections.abc import Mapping

import pytest

from finetune_api.reasons import Reason
from finetune_operator.providers.calls.errors import Refused
from finetune_operator.providers.sagemaker import output

ADAPTER = b'{"peft_type": "LORA", "r": 4}'
URI = "s3://theirs/job/output/model.tar.gz"


class Body(io.BytesIO):
    """A stream that says how far it was read."""

    def seek(self, *_: int) -> int:
        raise io.UnsupportedOperation("seek")


def archive(files: Mapping[str, bytes]) -> Body:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz", compresslevel=1) as packed:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            packed.addfile(member, io.BytesIO(data))
    return Body(content.getvalue())


NOISE = random.Random(0).randbytes(2_000_000)


def test_an_archive_is_read_no_further_than_to_where_its_model_is_known():
    body = archive({"adapter_config.json": ADAPTER, "adapter_model.safetensors": b"w", "optimizer.pt": NOISE})
    assert output.read_archive(body, URI).roots() == [""]
    assert body.tell() < len(NOISE) / 4


@pytest.mark.parametrize("folder", ["", "./", "model/", "./model/"])
def test_weights_may_come_before_their_configuration(folder):
    body = archive({f"{folder}model.safetensors": NOISE, f"{folder}config.json": b"{}"})
    found = output.read_archive(body, URI)
    root = folder.removeprefix("./")
    assert (found.roots(), found.below(root).sizes["model.safetensors"]) == ([root], len(NOISE))


def test_what_comes_too_late_in_an_archive_is_not_looked_for(monkeypatch):
    monkeypatch.setattr(output, "ARCHIVE_MAX_BYTES", 1_000_000)
    body = archive({"model.safetensors": NOISE, "config.json": b"{}"})
    with pytest.raises(Refused, match="CompressionType: NONE") as refused:
        output.read_archive(body, URI)
    assert refused.value.reason is Reason.MODEL_UNUSABLE
    assert body.tell() < len(NOISE) / 4, "nothing is read that would not be looked at"


@pytest.mark.parametrize("cut", [0, 10, 1000])
def test_an_archive_that_was_cut_short_is_none(cut):
    body = Body(archive({"model.safetensors": NOISE, "config.json": b"{}"}).getvalue()[:cut])
    with pytest.raises(Refused, match="not an archive that can be read"):
        output.read_archive(body, URI)
    assert body.tell() < len(NOISE) / 4


@pytest.mark.parametrize(
    ("config", "base"),
    [
        ('"org/model"', "org/model"),
        ('"gpt2"', "gpt2"),
        ('"/opt/ml/base"', None),
        ('"./base"', None),
        ('"a/b/c"', None),
        ("7", None),
        ("null", None),
    ],
)
def test_an_adapters_base_is_what_a_hub_may_have(config, base):
    text = f'{{"peft_type": "LORA", "r": "8", "base_model_name_or_path": {config}}}'.encode()
    files = output.Files({"adapter_model.safetensors": 1}, {"adapter_config.json": text})
    found = output.described(files, URI)
    assert (found.kind, found.base_model, found.lora_rank) == ("Adapter", base, None)


@pytest.mark.parametrize(("config", "needs"), [('"bias": "none"', None), ('"rank_pattern": {"q_proj": 8}', True)])
def test_an_adapter_that_peft_alone_reads_says_so(config, needs):
    files = output.Files(
        {"adapter_model.safetensors": 1}, {"adapter_config.json": f'{{"peft_type": "LORA", {config}}}'.encode()}
    )
    assert output.described(files, URI).needs_peft is needs


@pytest.mark.parametrize(
    ("config", "architecture"),
    [
        (b"{}", "CausalLM"),
        (b'{"architectures": ["T5ForConditionalGeneration"], "is_encoder_decoder": true}', "Seq2SeqLM"),
        (b'{"architectures": ["GPT2LMHeadModel"]}', "CausalLM"),
        (b'{"architectures": 5}', "CausalLM"),
    ],
)
def test_a_whole_model_is_one_that_answers(config, architecture):
    files = output.Files({"model-00001-of-00002.safetensors": 1}, {"config.json": config})
    assert output.described(files, URI).architecture == architecture


def test_a_name_without_end_is_not_read():
    """Gigabytes of nothing are a few megabytes to send, and tarfile would hold all of a long name at once."""
    head = tarfile.TarInfo("long")
    head.type, head.size = tarfile.XHDTYPE, 1 << 32
    body = Body(gzip.compress(head.tobuf() + NOISE, compresslevel=1))
    with pytest.raises(Refused, match="not an archive that can be read"):
        output.read_archive(body, URI)


def test_an_archive_of_a_long_name_is_read():
    name = "checkpoint/" + "x" * 300
    found = output.read_archive(archive({name: b"", "config.json": b"{}"}), URI)
    assert set(found.sizes) == {name, "config.json"}


@pytest.mark.parametrize(
    ("limit", "files", "said"),
    [
        ("ARCHIVE_MAX_FILES", {f"{number}.txt": b"" for number in range(11)}, "in its first 10 files"),
        ("CONFIGS_MAX_BYTES", {f"{number}/config.json": b"{}" for number in range(6)}, "of configurations"),
    ],
)
def test_whoever_writes_an_archive_does_not_fill_the_operators_memory(monkeypatch, limit, files, said):
    monkeypatch.setattr(output, limit, 10)
    assert output.read_archive(archive(dict(list(files.items())[:-1])), URI).sizes
    with pytest.raises(Refused, match=said):
        output.read_archive(archive(files), URI)
