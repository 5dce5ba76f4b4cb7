"""`finetune-trainer check` of connections, models and deployments: each of their fields, by line."""

import json
from pathlib import Path

import pytest

from finetune_api.exit_codes import ExitCode
from finetune_trainer.__main__ import main

EXAMPLES = Path(__file__).parents[4] / "examples"
CONNECTION = """\
apiVersion: finetune.dev/v1alpha1
kind: LLMConnection
metadata: {name: openai}
spec:
  namespaceSelector: {}
  openAI:
    apiKeySecretRef: {name: openai, key: api-key}
"""
MODEL = """\
apiVersion: finetune.dev/v1alpha1
kind: FineTunedModel
metadata: {name: sentiment, namespace: team-a}
"""
DEPLOYMENT = """\
apiVersion: finetune.dev/v1alpha1
kind: ModelDeployment
metadata: {name: sentiment, namespace: team-a}
spec:
  modelRef: {name: sentiment}
"""
JOB = """\
apiVersion: finetune.dev/v1alpha1
kind: FineTuneJob
metadata: {name: job}
spec:
  connectionRef: {name: openai}
  baseModel: org/model
  modelRef: {name: sentiment}
  dataset: {train: {uri: "file:///nowhere.jsonl"}}
"""


@pytest.fixture
def check(tmp_path, capsys):
    """Exit code, and what is said to people, of a file with some manifests."""

    def run(*manifests):
        (tmp_path / "m.yaml").write_text("---\n".join(manifests))
        code = main(["check", "-f", str(tmp_path / "m.yaml")])
        return code, capsys.readouterr().err

    return run


@pytest.mark.parametrize("path", sorted([*EXAMPLES.glob("connections/*"), *EXAMPLES.glob("deployments/*")]), ids=str)
def test_the_examples_are_said_to_be_right(path, capsys):
    main(["check", "-f", str(path)])
    out, err = capsys.readouterr()
    assert json.JSONDecoder().raw_decode(out)[0]["valid"]
    assert "the manifest is valid; only the cluster knows whether what it names exists" in err


@pytest.mark.parametrize(
    ("manifest", "said"),
    [
        (CONNECTION.replace("openAI:", "openai:"), "m.yaml line 6: spec.openai: no such field; did you mean openAI?"),
        (CONNECTION.replace(", key: api-key", ""), "line 7: spec.openAI.apiKeySecretRef.key is required"),
        (
            CONNECTION + "    learningRate: 1\n",
            "line 8: spec.openAI.learningRate: no such field; there are apiKeySecretRef",
        ),
        (
            CONNECTION + "  bedrock: null\n  huggingFace: {trainerImage: a/b, artifacts: {uri: 'pvc://a'}}\n",
            "line 4: spec: spec needs exactly one provider",
        ),
        (CONNECTION.partition("  openAI")[0], "line 4: spec: spec needs exactly one provider block"),
        (MODEL + "spec: {activation: automatic}\n", "line 4: spec.activation: input should be 'Automatic', 'IfBetter'"),
        (
            MODEL + "spec: {historyLimit: '3'}\n",
            "line 4: spec.historyLimit: input should be a valid integer: write it with",
        ),
        (MODEL.replace("sentiment", "Sentiment"), "line 3: metadata.name: this is not a name of an object"),
        (MODEL.replace("sentiment", "a.b"), "line 3: metadata.name: it becomes the name of a Service"),
        (DEPLOYMENT.partition("spec")[0], "line 1: spec is required"),
        (DEPLOYMENT + "  deletionPolicy: Keep\n", "line 6: spec.deletionPolicy: input should be 'Delete' or 'Retain'"),
        (
            DEPLOYMENT + "  huggingFace: {replicas: two}\n",
            "line 6: spec.huggingFace.replicas: input should be a valid int",
        ),
        (
            DEPLOYMENT + "  deletionPolicy: Orphan\n",
            "line 6: spec.deletionPolicy: input should be 'Delete' or 'Retain'; did",
        ),
        (DEPLOYMENT + "  replicas: 2\n", "line 6: spec.replicas: no such field; here it is spec.huggingFace.replicas"),
        (DEPLOYMENT + "  idle: {after: 2h}\n", "line 6: spec.idle.after: no such field; did you mean afterSeconds?"),
        (DEPLOYMENT + "  huggingFace: {gpus: [1]}\n", "a valid integer: write one number, no list"),
        (DEPLOYMENT + "  version: [1]\n", "line 6: spec.version: write one number or text, no list"),
        (
            MODEL + "spec: {deployment: {huggingFace: {}}}\n",
            "line 4: spec.deployment.huggingFace: no such field; here it is spec.deployment.template.huggingFace",
        ),
        (
            MODEL + "spec: {deployment: {template: {spec: {huggingFace: {}}}}}\n",
            "template.spec: no such field; its fields belong directly in spec.deployment.template",
        ),
        (
            CONNECTION.replace("{name: openai, key: api-key}", "{name: a, namespace: b, key: c}"),
            "namespace: no such field; leave it out: Secrets of a connection are in the operator's namespace",
        ),
        (
            CONNECTION + "  provider: openai\n",
            "line 8: spec.provider: no such field; the provider is chosen by its block",
        ),
        (
            CONNECTION.replace("apiKeySecretRef: {name: openai, key: api-key}", "apiKey: sk-SECRET"),
            "line 7: spec.openAI.apiKey: no such field; did you mean apiKeySecretRef?",
        ),
        (
            CONNECTION + "  allowedNamespaces: [a]\n",
            "spec.allowedNamespaces: no such field; here it is spec.namespaceSel",
        ),
        (
            CONNECTION.replace("{}", "{matchNames: [team-a]}"),
            "matchNames: no such field; write matchLabels: {kubernetes.io/metadata.name: NAME} for one by its name",
        ),
        (
            CONNECTION.partition("  openAI")[0] + "  huggingFace: {image: a/b:1, artifacts: {uri: pvc://a}}\n",
            "line 6: spec.huggingFace.image: no such field; did you mean trainerImage?",
        ),
        (
            CONNECTION + "  fineTuning: {allowedModels: ['^a']}\n",
            "spec.fineTuning.allowedModels[0]: write a glob, such as meta-llama/*",
        ),
        (
            CONNECTION + "  fineTuning: {allowedModels: ['meta-llama/.*']}\n",
            "spec.fineTuning.allowedModels[0]: no part of a model's name begins with a dot: write a glob",
        ),
        (DEPLOYMENT.replace("v1alpha1", "v1"), "line 1: apiVersion: input should be 'finetune.dev/v1alpha1'"),
    ],
)
def test_a_wrong_field_is_named_with_its_line_and_what_to_write(check, manifest, said):
    code, err = check(manifest)
    assert code == ExitCode.SPEC_INVALID
    assert said in err


@pytest.mark.parametrize(("written", "told"), [("ModelDeploymnt", "; did you mean ModelDeployment?"), ("Sandwich", "")])
def test_a_kind_that_is_misspelt_is_not_passed_over_as_one_of_somebody_else(check, written, told):
    code, err = check(MODEL, DEPLOYMENT.replace("ModelDeployment", written))
    assert code == ExitCode.SPEC_INVALID
    assert f"m.yaml line 6: finetune.dev has no kind {written}{told}" in err


def test_manifests_are_checked_where_their_data_are_not_at_hand(tmp_path, capsys):
    """In the CI of a repository there is no volume: the verdict on the data would be that they are not there."""
    (tmp_path / "m.yaml").write_text(f"{MODEL}---\n{JOB}")
    assert main(["check", "-f", str(tmp_path / "m.yaml"), "--manifest-only"]) == ExitCode.OK
    out, err = capsys.readouterr()
    assert json.loads(out[out.index("{\n", 1) :])["valid"]
    assert "job: the manifest is valid; its data were not read" in err
    (tmp_path / "m.yaml").write_text(JOB.replace("dataset:", "data:"))
    assert main(["check", "-f", str(tmp_path / "m.yaml"), "--manifest-only"]) == ExitCode.SPEC_INVALID
    said = [line.partition(": ")[0] for line in capsys.readouterr().err.splitlines()]
    assert said == ["m.yaml line 4", "  line 8", "  Correct the manifest."]  # each problem in a line of its own


@pytest.mark.parametrize(
    ("place", "warns"), [("file:///nowhere.jsonl", True), ("pvc://data/file:/a.jsonl", False), ("s3://b/a.csv", False)]
)
def test_a_file_of_this_machine_is_told_where_only_the_manifest_is_looked_at(tmp_path, capsys, place, warns):
    """It passes in the CI of a repository, and the cluster refuses it."""
    (tmp_path / "m.yaml").write_text(JOB.replace("file:///nowhere.jsonl", place))
    main(["check", "-f", str(tmp_path / "m.yaml"), "--manifest-only"])
    warning = "warning: spec.dataset.train.uri: file:// is a file of this machine, which the cluster rejects"
    assert (warning in capsys.readouterr().err) == warns


@pytest.mark.parametrize(("memory", "warns"), [("900Ti", True), ("32Ti", False), ("16Gi", False)])
def test_more_memory_than_any_known_machine_has_is_warned_of_and_not_refused(tmp_path, capsys, memory, warns):
    (tmp_path / "m.yaml").write_text(f"{JOB}  resources: {{memory: {memory}}}\n")
    assert main(["check", "-f", str(tmp_path / "m.yaml"), "--manifest-only"]) == ExitCode.OK
    assert (f"warning: spec.resources.memory: no known machine has {memory}" in capsys.readouterr().err) == warns


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("jobs/*.yaml")), ids=lambda path: path.stem)
def test_the_example_jobs_pass_where_their_data_are_not_at_hand(path, capsys):
    assert main(["check", "-f", str(path), "--manifest-only"]) == ExitCode.OK
    assert "its data were not read" in capsys.readouterr().err


def test_every_file_that_is_named_is_checked_as_kubectl_applies_every_one(tmp_path, capsys):
    for name, text in (
        ("a.yaml", CONNECTION),
        ("b.yaml", MODEL + "spec: {activation: always}\n"),
        ("c.yaml", DEPLOYMENT),
    ):
        (tmp_path / name).write_text(text)
    files = [flag for name in "abc" for flag in ("-f", str(tmp_path / f"{name}.yaml"))]
    assert main(["check", *files]) == ExitCode.SPEC_INVALID
    told = [line for line in capsys.readouterr().err.splitlines() if not line.startswith(" ")]
    assert [line.partition(":")[0].partition(" line")[0] for line in told] == [
        "LLMConnection openai",
        "b.yaml",
        "ModelDeployment sentiment",
    ]


def test_all_objects_of_a_file_are_told_of_and_others_passed_over(check):
    code, err = check(CONNECTION, MODEL, JOB, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\n")
    assert code == ExitCode.DATASET_NOT_FOUND
    assert [line.partition(":")[0] for line in err.splitlines() if not line.startswith(" ")] == [
        "LLMConnection openai",
        "FineTunedModel sentiment",
        "job",
    ]


NOT_HEEDED = {
    "lora: {r: 8}": "spec.lora: the provider chooses how it tunes; leave it out",
    "hyperparameters: {learningRate: 1.0e-4}": "spec.hyperparameters.learningRate: the provider takes a factor",
    "hyperparameters: {epochs: 1.5}": "spec.hyperparameters.epochs: the provider takes whole epochs",
    "hyperparameters: {packing: false}": "spec.hyperparameters.packing: the provider has its own recipe; leave it out",
    "resources: {gpusPerNode: 1}": "spec.resources: the job needs none of this cluster; leave them out",
    "artifact: {merge: true}": "spec.artifact: the model stays at the provider; leave it out",
    "trackers: {tensorBoard: {}}": "spec.trackers: they follow this project's trainer",
}


@pytest.mark.parametrize("more", [["--manifest-only"], []], ids=["manifest", "data"])
@pytest.mark.parametrize("field", NOT_HEEDED)
@pytest.mark.parametrize("provider", ["openAI", "openAICompatible", "azureOpenAI"])
def test_a_field_that_the_operator_would_refuse_at_a_provider_is_told_before(tmp_path, capsys, field, provider, more):
    (tmp_path / "m.yaml").write_text(f"{JOB.rstrip()}\n  {field}\n")
    assert main(["check", "-f", str(tmp_path / "m.yaml"), "--provider", provider, *more]) == ExitCode.SPEC_INVALID
    err = capsys.readouterr().err
    assert f"for {provider} connections: {NOT_HEEDED[field]}" in err
    assert "Correct the manifest." in err


@pytest.mark.parametrize(
    ("field", "limit"), [("epochs: 51", "epochs: OpenAI takes up to 50"), ("batchSize: 257", "256")]
)
def test_what_openai_bounds_is_told_of_it_alone(tmp_path, capsys, field, limit):
    (tmp_path / "m.yaml").write_text(f"{JOB.rstrip()}\n  hyperparameters: {{{field}}}\n")
    for provider, told in {"openAI": True, "openAICompatible": False, "azureOpenAI": False}.items():
        code = main(["check", "-f", str(tmp_path / "m.yaml"), "--provider", provider, "--manifest-only"])
        assert (code == ExitCode.SPEC_INVALID, limit in capsys.readouterr().err) == (told, told)


@pytest.mark.parametrize("provider", ["openAI", "azureOpenAI", "bedrock", "sageMaker"])
def test_the_examples_of_a_provider_ask_it_for_nothing_that_it_could_not_heed(provider, capsys):
    name = {"openAI": "openai", "azureOpenAI": "azure-openai"}.get(provider, provider.lower())
    paths = sorted(EXAMPLES.glob(f"jobs/{name}*.yaml"))
    assert paths
    for path in paths:
        assert main(["check", "-f", str(path), "--manifest-only", "--provider", provider]) == ExitCode.OK, path
    capsys.readouterr()


def of_pods(rest):
    return CONNECTION.partition("  openAI")[0] + f"  huggingFace:\n    artifacts: {{uri: 'pvc://a'}}\n    {rest}\n"


@pytest.mark.parametrize(
    ("rest", "said"),
    [
        (
            "modelCache: {volume: {persistentVolumeClaims: {claimName: a}}}",
            ".persistentVolumeClaims: no such field; did",
        ),
        ("modelCache: {volume: {persistentVolumeClaim: a}}", ".persistentVolumeClaim: write fields below it, such as"),
        ("modelCache: {volume: {persistentVolumeClaim: {}}}", "volume.persistentVolumeClaim.claimName is required"),
        ("modelCache: {volume: {hostPath: {path: /a, type: dir}}}", "volume.hostPath.type: write one of Directory"),
        ("modelCache: {volume: {foo: {}}}", "volume.foo: no such field; there are awsElasticBlockStore, azureDisk"),
        (
            "podTemplate: {tolerations: [{keyy: a}]}",
            "podTemplate.tolerations[0].keyy: no such field; did you mean key?",
        ),
        ("modelCache: {volume: {emptyDir: {sizeLimit: 10gb}}}", "emptyDir.sizeLimit: write a quantity such as 500Mi"),
        ("podTemplate: {tolerations: [{operator: exists}]}", "[0].operator: write one of Equal, Exists"),
        (
            "podTemplate: {affinity: {nodeAffinty: {}}}",
            "affinity.nodeAffinty: no such field; did you mean nodeAffinity?",
        ),
        ("podTemplate: {serviceAccountName: My SA}", "podTemplate.serviceAccountName: names of objects are in lower"),
    ],
)
def test_what_a_connection_says_of_pods_is_looked_into(check, rest, said):
    """The definition leaves it to Kubernetes: the API server would take it, and refuse each pod."""
    code, told = check(of_pods(f"trainerImage: a/b:1\n    {rest}"))
    assert code == ExitCode.SPEC_INVALID
    assert f"m.yaml line 9: spec.huggingFace.{rest.partition(':')[0]}" in told
    assert said in told
