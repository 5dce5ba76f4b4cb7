"""spec.code as one file: the ConfigMap's keys go in, as the kubelet shows them, and come out as they were."""

import base64
import json

import pytest

from finetune_api.job import FineTuneJobSpec
from finetune_trainer.errors import TrainerError
from finetune_trainer.job.code_files import pack, unpack

SPEC = FineTuneJobSpec.model_validate(
    {
        "connectionRef": {"name": "sagemaker"},
        "baseModel": "org/model",
        "modelRef": {"name": "mood"},
        "dataset": {"train": {"uri": "pvc://data/a.csv"}},
        "code": {"configMapRef": {"name": "my-recipe", "key": "train.py"}},
    }
)
KEYS = {"train.py": b"import helper\n", "helper.py": b"X = 1\n", "table.bin": bytes(range(256))}


def mounted(folder, keys=KEYS, when="2026_11_26"):
    """A ConfigMap as the kubelet mounts it: links to files in a folder whose name begins with two dots."""
    place = folder / "my-recipe"
    hidden = place / f"..{when}"
    hidden.mkdir(parents=True)
    (place / "..data").symlink_to(hidden.name)
    for name, content in keys.items():
        (hidden / name).write_bytes(content)
        (place / name).symlink_to(f"..data/{name}")
    return folder


def test_all_keys_come_out_as_they_went_in_and_nothing_else_is_there(tmp_path):
    packed = pack(SPEC, tmp_path, mounted(tmp_path / "mounts"))
    assert (packed.split, packed.bytes) == ("code", packed.path.stat().st_size)
    out = tmp_path / "out"
    out.mkdir()
    (out / "of-an-earlier-attempt.py").touch()
    unpack(packed.path, out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == KEYS


def test_the_same_code_has_the_same_hash_whenever_it_was_mounted(tmp_path):
    first = pack(SPEC, tmp_path, mounted(tmp_path / "one"))
    again = pack(SPEC, tmp_path, mounted(tmp_path / "two", dict(reversed(KEYS.items())), when="2026_12_24"))
    other = pack(SPEC, tmp_path, mounted(tmp_path / "three", KEYS | {"helper.py": b"X = 2\n"}))
    assert first.sha256 == again.sha256 != other.sha256


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"helper.py": b""}, "ConfigMap my-recipe has no key train.py"),
        (KEYS | {"-x.py": b""}, "ConfigMap my-recipe: -x.py is not a name"),
    ],
)
def test_a_configmap_that_cannot_be_run_is_refused_before_anything_is_sent(tmp_path, keys, said):
    with pytest.raises(TrainerError, match=said):
        pack(SPEC, tmp_path, mounted(tmp_path / "mounts", keys))


def test_a_configmap_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(TrainerError, match="has no key"):
        pack(SPEC, tmp_path, tmp_path / "nowhere")


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        json.dumps({"files": {"../train.py": ""}}),
        json.dumps({"files": {"/etc/passwd": ""}}),
        json.dumps({"files": {"a/b.py": ""}}),
        json.dumps({"files": {"..": ""}}),
        json.dumps({"files": {"train.py": "no base64!"}}),
    ],
)
def test_what_holds_no_code_leaves_nothing(tmp_path, content):
    file, out = tmp_path / "code.json", tmp_path / "out"
    file.write_text(content)
    with pytest.raises(TrainerError, match="holds no code"):
        unpack(file, out)
    assert not out.exists()


def test_contents_are_base64(tmp_path):
    packed = pack(SPEC, tmp_path, mounted(tmp_path / "mounts"))
    files = json.loads(packed.path.read_bytes())["files"]
    assert base64.b64decode(files["table.bin"]) == KEYS["table.bin"]
