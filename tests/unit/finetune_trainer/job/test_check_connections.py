"""`check` is given the connection beside the job: in the same file, in another one, or in the same folder."""

import json
from pathlib import Path
from typing import Any

import pytest

from finetune_api.exit_codes import ExitCode
from finetune_trainer.__main__ import main

ROOT = Path(__file__).parents[4]
OPENAI = {"openAI": {"apiKeySecretRef": {"name": "openai", "key": "api-key"}}}
GATEWAY = {"openAI": {"baseURL": "https://llm.example.com/v1", **OPENAI["openAI"]}}
LOCAL = {"huggingFace": {"trainerImage": "ghcr.io/example/trainer:1", "artifacts": {"uri": "pvc://models"}}}
AIR_GAPPED = {
    "huggingFace": {**LOCAL["huggingFace"], "airGapped": True, "modelCache": {"volume": {"emptyDir": {}}}},
}
SAGEMAKER = {
    "sageMaker": {
        "region": "us-east-1",
        "roleARN": "arn:aws:iam::123456789012:role/tuning",
        "trainerImage": "123456789012.dkr.ecr.us-east-1.amazonaws.com/trainer:1",
        "s3": {"bucket": "tuning"},
        "instanceTypes": ["ml.g5.xlarge"],
        "credentials": {"podIdentity": True},
    }
}


def connection(block: dict[str, Any], **spec: Any) -> dict[str, Any]:
    metadata = {"name": "team"}
    return {
        "apiVersion": "finetune.dev/v1alpha1",
        "kind": "LLMConnection",
        "metadata": metadata,
        "spec": {**block, **spec},
    }


def job(folder: Path, **spec: Any) -> dict[str, Any]:
    rows = folder / "rows.txt"
    rows.write_text("".join(f'{{"prompt": "p{n}", "completion": "c{n}"}}\n' for n in range(12)))
    return {
        "apiVersion": "finetune.dev/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": "a"},
        "spec": {
            "connectionRef": {"name": "team"},
            "baseModel": "gpt-4o-mini-2024-07-18",
            "modelRef": {"name": "m"},
            "dataset": {"train": {"uri": rows.as_uri(), "format": "JSONLines"}},
            **spec,
        },
    }


def write(path: Path, *manifests: dict[str, Any]) -> str:
    path.parent.mkdir(exist_ok=True)
    path.write_text("---\n".join(json.dumps(one) + "\n" for one in manifests))
    return str(path)


def test_the_provider_is_that_of_a_connection_in_another_file(tmp_path, capsys):
    files = ["-f", write(tmp_path / "job.yaml", job(tmp_path)), "-f", write(tmp_path / "c.yaml", connection(OPENAI))]
    assert main(["check", *files]) == ExitCode.OK
    assert "OpenAI gets" in capsys.readouterr().err


def test_the_provider_is_that_of_a_connection_in_the_same_file_or_folder(tmp_path, capsys):
    one = write(tmp_path / "all.yaml", job(tmp_path), connection(GATEWAY))
    assert main(["check", "-f", one]) == ExitCode.OK
    assert "the service gets" in capsys.readouterr().err
    write(tmp_path / "apart" / "job.yml", job(tmp_path))
    write(tmp_path / "apart" / "team.json", connection(OPENAI))
    write(tmp_path / "apart" / "kustomization.yaml", {"resources": ["job.yml"]})
    (tmp_path / "apart" / "README.md").write_text("{{ not: read }}")
    assert main(["check", "-f", str(tmp_path / "apart")]) == ExitCode.OK
    assert "OpenAI gets" in capsys.readouterr().err


REFUSED = {
    "another model": (OPENAI, {"fineTuning": {"allowedModels": ["meta-llama/*"]}}, {}, "spec.baseModel: gpt-4o-mini"),
    "switched off": (LOCAL, {"fineTuning": {"enabled": False}}, {}, "fine-tuning is switched off"),
    "own code": (LOCAL, {}, {"code": {"configMapRef": {"name": "x", "key": "y.py"}}}, "does not allow custom code"),
    "budget on the cluster": (LOCAL, {}, {"budget": {"maxCost": "1"}}, "spec.budget: LLMConnection team tunes on this"),
    "another field": (OPENAI, {}, {"lora": {"r": 8}}, "for openAI connections: spec.lora: the provider chooses"),
    "an instance": (SAGEMAKER, {}, {"resources": {"instanceType": "ml.p4d.24xlarge"}}, "the connection has ml.g5"),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("more", [[], ["--manifest-only"]])
def test_what_the_connection_refuses_is_told_before_it_is_applied(tmp_path, capsys, case, more):
    block, of_connection, of_job, said = REFUSED[case]
    files = [write(tmp_path / "c.yaml", connection(block, **of_connection)), write(tmp_path / "j.yaml", job(tmp_path))]
    write(tmp_path / "j.yaml", job(tmp_path, **of_job))
    assert main(["check", "-f", files[1], "-f", files[0], *more]) == ExitCode.SPEC_INVALID
    assert said in capsys.readouterr().err


def test_an_air_gapped_connection_reaches_no_hub_from_here_either(tmp_path, capsys):
    from_hub = {"dataset": {"train": {"uri": "hf://datasets/a/b/c.jsonl"}}}
    one = write(tmp_path / "all.yaml", connection(AIR_GAPPED), job(tmp_path, **from_hub))
    assert main(["check", "-f", one]) != ExitCode.OK
    assert "air-gapped" in capsys.readouterr().err


def test_the_example_jobs_are_taken_by_the_example_connections(capsys):
    folders = [str(ROOT / "examples" / kinds) for kinds in ("jobs", "connections")]
    assert main(["check", "--manifest-only", "-f", folders[0], "-f", folders[1]]) == ExitCode.OK
    assert "warning" not in capsys.readouterr().err


@pytest.mark.parametrize("server", [{}, {"baseURL": "https://wandb.site.example"}], ids=["public", "of the site"])
def test_a_tracker_that_an_air_gapped_site_does_not_ask_is_told(tmp_path, capsys, server):
    tracked = job(tmp_path, trackers={"wandb": {"secretRef": {"name": "wandb"}, **server}})
    one = write(tmp_path / "all.yaml", connection(AIR_GAPPED), tracked)
    assert main(["check", "-f", one, "--manifest-only"]) == ExitCode.OK
    said = capsys.readouterr().err
    assert ("warning: spec.trackers.wandb: the connection is airGapped" in said) is (not server)


@pytest.mark.parametrize("more", [[], ["--manifest-only"]])
def test_an_evaluation_that_has_nothing_to_be_made_on_is_told(tmp_path, capsys, more):
    one = write(tmp_path / "all.yaml", job(tmp_path, evaluation={"metrics": ["rougeL"]}))
    assert main(["check", "-f", one, *more]) == ExitCode.OK
    assert "warning: spec.evaluation: there is no dataset.test, so nothing is evaluated" in capsys.readouterr().err


def test_the_flag_counts_before_the_connection(tmp_path, capsys):
    one = write(tmp_path / "all.yaml", connection(OPENAI), job(tmp_path))
    assert main(["check", "-f", one, "--provider", "azureOpenAI"]) == ExitCode.OK
    assert "Azure OpenAI gets" in capsys.readouterr().err


def test_of_two_connections_of_one_name_the_one_beside_the_job_counts_and_else_the_last_with_a_word(tmp_path, capsys):
    dev, prod = (write(tmp_path / f"{name}.yaml", connection(block)) for name, block in (("a", OPENAI), ("b", GATEWAY)))
    beside = write(tmp_path / "all.yaml", connection(OPENAI), job(tmp_path))
    assert main(["check", "-f", beside, "-f", prod]) == ExitCode.OK
    said = capsys.readouterr().err
    assert "OpenAI gets" in said
    assert "which differ" not in said
    alone = write(tmp_path / "alone.yaml", job(tmp_path))
    assert main(["check", "-f", dev, "-f", prod, "-f", alone]) == ExitCode.OK
    said = capsys.readouterr().err
    assert "the service gets" in said
    assert f"LLMConnection team is in {dev} and {prod}, which differ: that of {prod} was taken" in said


def test_a_connection_of_another_name_than_the_jobs_does_not_count_in_silence(tmp_path, capsys):
    other = job(tmp_path, connectionRef={"name": "teem"})
    one = write(tmp_path / "all.yaml", connection(OPENAI), other)
    assert main(["check", "-f", one, "--manifest-only"]) == ExitCode.OK
    assert "warning: spec.connectionRef.name: LLMConnection teem is in none of the files (there: team)" in (
        capsys.readouterr().err
    )


def test_a_folder_without_anything_of_ours_is_told(tmp_path, capsys):
    write(tmp_path / "a" / "kustomization.yaml", {"resources": []})
    assert main(["check", "-f", str(tmp_path / "a")]) == ExitCode.SPEC_INVALID
    said = capsys.readouterr().err
    assert "has no FineTuneJob, nor another object of ours" in said
    assert "those below it are not read" in said
