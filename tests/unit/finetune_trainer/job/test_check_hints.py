"""What `check` says to write instead is right when somebody does so to the letter."""

import json
import re

import pytest
import yaml

from finetune_trainer.errors import TrainerError
from finetune_trainer.job.manifest import read_all

HEAD = "apiVersion: finetune.dev/v1alpha1\nkind: {}\nmetadata: {{name: tickets}}\nspec:\n"
JOB = HEAD.format("FineTuneJob") + (
    "  connectionRef: {name: local}\n"
    "  baseModel: HuggingFaceTB/SmolLM2-135M-Instruct\n"
    "  modelRef: {name: tickets}\n"
    '  dataset: {train: {uri: "pvc://data/train.jsonl"}}\n'
)
MODEL = HEAD.format("FineTunedModel")
DEPLOYMENT = HEAD.format("ModelDeployment") + "  modelRef: {name: tickets}\n"
CONNECTION = HEAD.format("LLMConnection")
CACHED = CONNECTION + "  huggingFace: {trainerImage: r/t:1, artifacts: {uri: 'pvc://models'}, modelCache: MORE}\n"
AZURE = CONNECTION + (
    "  azureOpenAI: {subscriptionID: 11111111-2222-3333-4444-555555555555, resourceGroup: g, account: r, "
    "endpoint: 'https://r.openai.azure.com', credentials: {workloadIdentity: true}, MORE}\n"
)
BEDROCK = CONNECTION + (
    "  bedrock: {region: us-east-1, roleARN: 'arn:aws:iam::111122223333:role/x', s3: {bucket: data}, "
    "credentials: {podIdentity: true}}\n"
)


@pytest.fixture
def refused(tmp_path):
    """What is said of a file, and what to do."""

    def of(text: str) -> tuple[str, str]:
        path = tmp_path / "m.yaml"
        path.write_text(text, newline="")
        with pytest.raises(TrainerError) as raised:
            read_all(path)
        return raised.value.message, raised.value.next_step or ""

    return of


@pytest.mark.parametrize(
    ("field", "written", "meant"),
    [
        ("activeDeadlineSeconds", "6h", 21600),
        ("activeDeadlineSeconds", "1h30m", 5400),
        ("activeDeadlineSeconds", "90 minutes", 5400),
        ("activeDeadlineSeconds", "2 hrs", 7200),
        ("activeDeadlineSeconds", "0.5h", 1800),
        ("activeDeadlineSeconds", "PT6H", 21600),
        ("activeDeadlineSeconds", "P1D", 86400),
        ("activeDeadlineSeconds", "1:30:00", 5400),
        ("ttlSecondsAfterFinished", "7d", 604800),
        ("ttlSecondsAfterFinished", "2 weeks", 1209600),
        ("hyperparameters.learningRate", "0.02%", 0.0002),
        ("hyperparameters.warmupRatio", "3 %", 0.03),
        ("hyperparameters.epochs", "50%", 0.5),
    ],
)
def test_a_value_with_a_unit_is_answered_with_the_number_that_it_is(refused, tmp_path, field, written, meant):
    """Without its unit alone, 6h would be six seconds."""
    *parts, last = field.split(".")
    text = f"{JOB}  " + "".join(f"{part}: {{" for part in parts) + f"{last}: {{}}" + "}" * len(parts) + "\n"
    message, _ = refused(text.replace("{}", f'"{written}"'))
    told = re.search(rf"; {re.escape(written)} is (\S+)$", message)
    assert told, message
    assert float(told[1]) == meant
    (tmp_path / "right.yaml").write_text(text.replace("{}", told[1]))
    assert read_all(tmp_path / "right.yaml")


@pytest.mark.parametrize(
    "written", ["5 months", "soon", "6x", "h", "1 year", "", "-5m", f"{'9' * 400}h", f"{'9' * 5000}k", "nan%"]
)
def test_what_is_no_duration_is_made_none(refused, written):
    message, _ = refused(f'{JOB}  activeDeadlineSeconds: "{written}"\n')
    assert " is " not in message.rpartition(")")[2]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"{JOB}  hyperparameters:\n    learningRate: 0,0002\n", "write a point for a fraction, and nothing between"),
        (f"{JOB}  hyperparameters: {{maxSequenceLength: 4k}}\n", "; 4k is 4000 or 4096"),
        (f"{DEPLOYMENT}  version: 2.5\n", "spec.version: write a whole number, or text"),
        (f"{JOB}  lora: true\n", "spec.lora: write {} for its defaults, or fields below it: alpha"),
        (
            f"{JOB}  trackers: true\n",
            "spec.trackers: write fields below it: trackers needs mlflow, tensorBoard or wandb",
        ),
        (
            f"{JOB}  artifact: {{push: true}}\n",
            "spec.artifact.push: write fields below it: push needs oci or huggingFace",
        ),
        (
            f"{JOB}  resources: {{memory: '{'1' * 33}'}}\n",
            "spec.resources.memory: a quantity has at most 32 characters",
        ),
        (f"{JOB}  preference: false\n", "spec.preference: leave it out, or fields below it"),
        (f"{MODEL}  deployment: false\n", "spec.deployment: write {mode: Manual}, or fields below it"),
        (CACHED.replace("MORE", "{volume: cache}"), "such as {persistentVolumeClaim: {claimName: model-cache}}"),
        (CACHED.replace("MORE", "{uri: 'pvc://cache'}"), "modelCache.uri: no such field; there is only volume"),
        (
            AZURE.replace("MORE", "apiKeySecretRef: {name: a, key: b}"),
            "apiKeySecretRef: no such field; it is a field of openAI; there are account",
        ),
        (
            BEDROCK.replace("bucket: data", "bucket: data, uri: 's3://b'"),
            "s3.uri: no such field; there are bucket, prefix",
        ),
        (f"{DEPLOYMENT}  attach: {{id: a, name: b}}\n", "spec.attach.name: no such field; there is only id"),
        (
            f"{DEPLOYMENT}  huggingFace: {{resources: {{memory: 5Gi}}}}\n",
            "resources.memory: no such field; write it below limits, below requests, or both: limits: {memory: …}",
        ),
        (f"{DEPLOYMENT}  huggingFace: {{resources: {{limit: {{}}}}}}\n", "no such field; did you mean limits?"),
        (f"{CONNECTION}  namespaceSelector: {{finetune: 'yes'}}\n", "write matchLabels: {finetune: …}"),
        (
            JOB.replace("{train:", "{format: CSV, train:"),
            "spec.dataset.format: no such field; here it is spec.dataset.train",
        ),
        (JOB.replace("modelRef:", "model:"), "spec.model: no such field; did you mean modelRef?"),
        (JOB.replace("baseModel:", "model:"), "spec.model: no such field; did you mean baseModel?"),
        (f"{JOB}  provider: openAI\n", "spec.provider: no such field; the connection that connectionRef names"),
        (f"{JOB}  hyperparameters: {{steps: 10}}\n", "steps: no such field; did you mean epochs?"),
        (f"{JOB}  preference: dpo\n", "spec.preference: write {} for its defaults, or fields below it"),
        (f"{JOB}  hyperparameters: {{learningRate: 1/10000}}\n", ": write the number itself, nothing is calculated"),
        (f"{JOB}  hyperparameters: {{maxSequenceLength: 2^11}}\n", ": write the number itself, nothing is calculated"),
        (f"{JOB}  hyperparameters: {{learningRate: 1e\u22124}}\n", "only looks like one of a number"),
        (f"{JOB}  hyperparameters: {{schedule: none}}\n", "did you mean Constant?"),
        (f"{JOB}  hyperparameters: {{schedule: linear_with_warmup}}\n", "did you mean Linear?"),
        (f"{JOB}  trust_remote_code: true\n", "the connection's huggingFace.trustRemoteCode says"),
        (f"{JOB}  peftConfig: {{r: 8}}\n", "spec.peftConfig: no such field; did you mean lora?"),
        (JOB.replace("{train:", "{name: squad, train:"), "a file of a hub's dataset is uri: hf://datasets/OWNER"),
        (f"{JOB}  method: full-finetuning\n", "did you mean Full?"),
        (JOB.replace("pvc://data", "s3//bucket"), "spec.dataset.train.uri: write s3://, with a colon and two slashes"),
        (f"{DEPLOYMENT}  apiKeySecretRef: key\n", "spec.apiKeySecretRef: write fields below it: key, name"),
        (f"{JOB}  activation: Manual\n", "spec.activation: no such field; it is a field of FineTunedModel"),
        (f"{JOB}  deletionPolicy: Delete\n", "; it is a field of FineTunedModel and ModelDeployment"),
        (f"{MODEL}  baseModel: a/b\n", "spec.baseModel: no such field; it is a field of FineTuneJob"),
        (f"{MODEL}  deployment: {{template: {{version: 2}}}}\n", "; it is a field of ModelDeployment"),
        (f"{DEPLOYMENT}  connectionRef: {{name: a}}\n", "; it is a field of FineTuneJob"),
        (
            f"{JOB}  resources: {{limits: {{nvidia.com/gpu: 1}}}}\n",
            "; its fields belong directly in spec.resources",
        ),
        (f"{MODEL}  replicas: 2\n", "here it is spec.deployment.template.huggingFace.replicas"),
        (CONNECTION + "  allowedModels: ['*']\n", "here it is spec.fineTuning.allowedModels"),
        (f"{JOB}  code: train.py\n", "spec.code: write {configMapRef: …} instead"),
        (
            JOB.replace("modelRef: {name: tickets}", "modelRef: {name: '{{ .Values.m }}'}"),
            "what the placeholder stands for",
        ),
        (
            JOB.replace("metadata: {name: tickets}", "metadata: {name: 'x-${CI_SHA}'}"),
            "what the placeholder stands for",
        ),
        (JOB.replace("SmolLM2", "${MODEL}"), "no path; write what the placeholder stands for"),
        (JOB.replace("baseModel: ", "baseModel: |\n    "), "a space, a line break or a quotation mark is at its"),
        (JOB.replace("baseModel: ", "baseModel:"), "; line 6 has no space after baseModel:"),
        (
            JOB.replace("  baseModel", "   baseModel"),
            "line 6: it is indented otherwise than the lines that it belongs to",
        ),
        (
            JOB.replace("baseModel: ", "baseModel: model: "),
            "line 6: there is a second colon in the line, or the line is",
        ),
        (
            f"{JOB}  preference:\n",
            "line 9: preference: there is nothing after its colon, which leaves it out: write {}",
        ),
        (f"{JOB}  trackers:\n    tensorBoard:\n", "line 10: tensorBoard: there is nothing after its colon"),
        (f"{DEPLOYMENT}  azureOpenAI: null\n", "line 6: azureOpenAI: there is nothing after its colon"),
        (BEDROCK + "  namespaceSelector: ~\n", "line 6: namespaceSelector: there is nothing after its colon"),
        (
            AZURE.replace("MORE", "apiVersion: 2025-04-01-preview"),
            "the operator knows which version of the API it speaks",
        ),
        (
            CONNECTION + "  namespaceSelector: all\n",
            "spec.namespaceSelector: write {} for every namespace, or matchLabels",
        ),
        (
            f"{DEPLOYMENT}  huggingFace: {{resources: {{limits: {{gpu: 1}}}}}}\n",
            "with a domain, such as nvidia.com/gpu: 1",
        ),
        (f"{JOB}  lora: {{targetModules: all}}\n", "spec.lora.targetModules: write all-linear in lower case"),
        (f"{DEPLOYMENT}  openAI: {{}}\n", "spec.openAI: no such field; a model at OpenAI needs no deployment"),
        (f"{DEPLOYMENT}  ingress: {{host: a}}\n", "a Service of the object's name is made, and no Ingress"),
        (f"{MODEL}  rollback: 1\n", "activeVersion of a FineTunedModel, version of a ModelDeployment"),
        (f"{JOB}labels: {{a: b}}\n", "line 9: labels: no such field; here it is metadata.labels"),
        (f"{MODEL}  historyLimit: 3\nnamespace: a\n", "namespace: no such field; here it is metadata.namespace"),
        (
            f"{JOB}  retryNonce: !vault abc\n",
            "line 9: there is a tag such as !vault, which Kubernetes does not read",
        ),
        (f'{JOB}  retryNonce: "a\n', "line 9: a quotation mark opens a text that is never closed"),
        (JOB.replace("baseModel:", "baseModel"), "line 6: there is no colon after the name"),
        (
            JOB.replace("{name: tickets}\n  dataset", "{name: tickets\n  dataset"),
            "line 7: a bracket { is opened and not",
        ),
        (JOB.replace("  baseModel", "\tbaseModel"), "line 6: there is a tab at its beginning: indent with spaces"),
        (f"{JOB}  hyperparameters: {{epochs: \u0663}}\n", "only looks like one of a number"),
        (f"{JOB}  hyperparameters: {{batchSize: 1 000}}\n", "nothing between thousands"),
        (
            f"{JOB}  hyperparameters: {{epochs:5, seed: 1}}\n",
            "line 9: epochs:5 has no value, and is left out: write epochs: 5, with a space after the colon",
        ),
        (
            f"{JOB}  hyperparameters: {{seed: 1, packing}}\n",
            "line 9: packing has no value, and is left out: a colon and a value must follow it",
        ),
        ("%YAML 1.1\n---\n" + JOB, "line 1: it begins with a directive such as %YAML, which kubectl does not read"),
        (HEAD.format("").replace("kind: \n", "") + "  a: 1\n", "line 1: kind is missing"),
    ],
)
def test_what_many_get_wrong_is_answered_with_what_is_right(refused, text, said):
    assert said in refused(text)[0]


def test_the_one_value_that_a_field_may_have_is_told_once(refused):
    assert refused(JOB.replace("v1alpha1", "v1"))[0].endswith("apiVersion: input should be 'finetune.dev/v1alpha1'")


@pytest.mark.parametrize(
    ("written", "heed"),
    [
        ("hyperparameters: {max_steps: 100}", "did you mean epochs? (it counts passes over the data, of which one has"),
        ("max_steps: 100", "spec.hyperparameters.epochs (it counts passes over the data, of which one has rows / "),
        ("hyperparameters: {warmup_steps: 10}", "did you mean warmupRatio? (it is a fraction of all steps, such as"),
        ("learningRateWarmupSteps: 10", "spec.hyperparameters.warmupRatio (it is a fraction of all steps"),
        ("load_in_4bit: true", "did you mean method? (QLoRA loads the base model in 4 bits)"),
        ("load_in_8bit: true", "did you mean method? (QLoRA loads the base model in 4 bits; 8 bits are not supported)"),
        ("fp16: true", "spec.hyperparameters.precision (BFloat16 is supported, float16 is not)"),
    ],
)
def test_where_our_field_means_something_else_than_the_name_elsewhere_that_is_told(refused, written, heed):
    """epochs: 100 in place of max_steps: 100 would train for days."""
    assert heed in refused(f"{JOB}  {written}\n")[0]


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("method: dora", "that is LoRA with lora: {useDoRA: true}"),
        ("method: rsLoRA", "that is LoRA with lora: {useRSLoRA: true}"),
        ("method: GRPO", "learning from rewards is not supported"),
        ("method: adalora", "that way of tuning is not supported"),
        ("method: CONTINUED_PRE_TRAINING", "a job learns answers to prompts"),
        ("hyperparameters: {precision: fp16}", "there is no float16: BFloat16 takes as much memory"),
        ("hyperparameters: {precision: 16}", "there is no float16: BFloat16 takes as much memory"),
        ("hyperparameters: {precision: 4bit}", "a base model of 4 bits is method: QLoRA"),
    ],
)
def test_a_value_that_is_no_slip_of_the_pen_is_answered_with_what_there_is(refused, written, said):
    """LoRA in place of DoRA, or BFloat16 in place of 8 bits, would be another training than was meant."""
    message, _ = refused(f"{JOB}  {written}\n")
    assert f"; {said}" in message
    assert "did you mean" not in message


@pytest.mark.parametrize(
    "written",
    [
        "https://huggingface.co/meta-llama/Llama-3.1-8B",
        "https://huggingface.co/meta-llama/Llama-3.1-8B/tree/main",
        "hf://meta-llama/Llama-3.1-8B",
        "hf://models/meta-llama/Llama-3.1-8B",
        "https://www.hf.co/meta-llama/Llama-3.1-8B?x=1",
    ],
)
def test_the_page_of_a_model_is_answered_with_its_name(refused, written):
    message, _ = refused(JOB.replace("HuggingFaceTB/SmolLM2-135M-Instruct", written))
    assert message.endswith("; did you mean meta-llama/Llama-3.1-8B?")


def test_a_value_alone_is_answered_with_all_that_is_around_it(refused, tmp_path):
    text = JOB.replace('{train: {uri: "pvc://data/train.jsonl"}}', "PLACE")
    message, _ = refused(text.replace("PLACE", "pvc://data/train.jsonl"))
    told = re.search(r"spec\.dataset: write (\{.*\}) instead", message)
    assert told, message
    (tmp_path / "right.yaml").write_text(text.replace("PLACE", told[1].replace("…", "'pvc://data/train.jsonl'")))
    assert read_all(tmp_path / "right.yaml")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"{JOB}---\nhello\n", "m.yaml line 10: there is no object, only text"),
        ("kind: List\nitems:\n- {kind: List, items: []}\n", "m.yaml line 1: a List contains a List, which kubectl"),
    ],
)
def test_a_file_that_kubectl_takes_nothing_of_is_not_right_in_parts(refused, text, said):
    assert refused(text)[0].startswith(said)


@pytest.mark.parametrize("dump", [yaml.safe_dump, lambda value: str(value).replace("'", '"')])
def test_objects_in_a_list_are_told_to_be_so_as_kubectl_reads_none(refused, dump):
    message, step = refused(dump([yaml.safe_load(JOB), yaml.safe_load(DEPLOYMENT)]))
    assert message == "m.yaml: the objects are in a list, which kubectl does not read"
    assert "---" in step
    assert "kind: List" in step


@pytest.mark.parametrize(
    "text",
    [
        JOB.replace("baseModel: ", "baseModel:\t"),
        JOB.replace("tickets}\n", "tickets}\t\n"),
        JOB.replace("{name: local}", "{\tname:\tlocal\t}\t# a comment"),
        json.dumps(yaml.safe_load(JOB), indent="\t"),
        json.dumps(yaml.safe_load(JOB), indent="\t") + "\n" + json.dumps(yaml.safe_load(JOB.replace("tickets", "b"))),
    ],
    ids=["behind a colon", "at the end of a line", "in brackets", "JSON", "two of JSON"],
)
def test_a_tab_is_a_space_where_it_indents_nothing(tmp_path, text):
    """kubectl takes each of them, and JSON is often indented by tabs."""
    (tmp_path / "m.yaml").write_text(text)
    assert read_all(tmp_path / "m.yaml")[1][0].spec.connection_ref.name == "local"


@pytest.mark.parametrize("more", ["  hyperparameters:\n", "  lora:\n", "  evaluation: ~\n", "  preference: {}\n"])
def test_a_part_with_nothing_in_it_is_nobodys_mistake_where_it_means_the_same(tmp_path, more):
    (tmp_path / "m.yaml").write_text(JOB + more)
    assert read_all(tmp_path / "m.yaml")
