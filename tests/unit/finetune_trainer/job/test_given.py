"""Keys of a job's data: those that stores know become variables, and none that a process would run code for."""

import json
import logging
import os
from pathlib import Path

import pytest

from finetune_api.trainer import TrainerJob
from finetune_trainer.job.given import DATA_KEYS, job_given, take_data_keys
from tests.unit.finetune_trainer.jobs import make_job

PREFIX = "FINETUNE_DATA_"


@pytest.mark.parametrize("name", ["AWS_SECRET_ACCESS_KEY", "AZURE_STORAGE_SAS_TOKEN", "HF_TOKEN", "https_proxy"])
def test_a_key_that_a_store_asks_for_becomes_a_variable_whatever_the_image_has(name):
    environment = {name: "of the image", f"{PREFIX}{name}": "of the Secret"}
    take_data_keys(environment)
    assert environment[name] == "of the Secret"


@pytest.mark.parametrize("written", ["key\n", "key\r\n", " key"])
def test_a_key_that_was_made_from_a_file_comes_without_its_line_break(written):
    """`kubectl create secret --from-file` keeps it, and no store takes a key with one."""
    environment = {f"{PREFIX}AWS_SECRET_ACCESS_KEY": written}
    take_data_keys(environment)
    assert environment["AWS_SECRET_ACCESS_KEY"] == "key"


@pytest.mark.parametrize(
    "name",
    ["PYTHONPATH", "LD_PRELOAD", "CC", "AWS_CONFIG_FILE", "HF_HUB_OFFLINE", "FINETUNE_JOB", "JOB_COMPLETION_INDEX"],
)
def test_a_key_that_would_change_what_runs_becomes_none_and_is_named_without_its_value(name, caplog):
    environment = {f"{PREFIX}{name}": "the value"}
    with caplog.at_level(logging.WARNING):
        take_data_keys(environment)
    assert name not in environment
    assert name in caplog.text
    assert "the value" not in caplog.text


@pytest.mark.parametrize(("reference", "taken"), [(None, "of the data"), ({"name": "hub", "key": "t"}, "of the hub")])
def test_the_hub_token_of_the_base_model_goes_before_that_of_the_data(tmp_path, monkeypatch, reference, taken):
    more = {"hubTokenSecretRef": reference} if reference else {}
    job = make_job(tmp_path, tmp_path, **more)
    monkeypatch.setenv("FINETUNE_JOB", json.dumps(job.wire()))
    monkeypatch.setenv("HF_TOKEN", "of the hub")
    monkeypatch.setenv(f"{PREFIX}HF_TOKEN", "of the data")
    assert job_given(TrainerJob, "").spec == job.spec
    assert os.environ["HF_TOKEN"] == taken


def test_the_guide_names_every_key():
    guide = (Path(__file__).parents[4] / "docs" / "guides" / "tune.md").read_text(encoding="utf-8")
    assert {name for name in DATA_KEYS if name.isupper() and f"`{name}`" not in guide} == set()
