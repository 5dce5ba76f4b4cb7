"""Manifests from files: what the API server would refuse is refused with the field and what to write."""

import json
from pathlib import Path

import pytest
import yaml

from finetune_trainer.errors import TrainerError
from finetune_trainer.job.manifest import read_all, read_job, read_jobs
from finetune_trainer.job.other_names import PLACES

JOB = """\
apiVersion: finetune.dev/v1alpha1
kind: FineTuneJob
metadata: {name: sentiment-1, annotations: {a: b}}
spec:
  connectionRef: {name: local-gpu}
  baseModel: HuggingFaceTB/SmolLM2-135M-Instruct
  modelRef: {name: sentiment}
  dataset:
    train: {uri: "file:///data/train.jsonl"}
"""


@pytest.fixture
def write(tmp_path):
    def to(text: str):
        path = tmp_path / "job.yaml"
        path.write_text(text)
        return path

    return to


def refusal(path) -> TrainerError:
    with pytest.raises(TrainerError) as raised:
        read_jobs(path)
    assert raised.value.reason == "SpecInvalid"
    assert raised.value.exit_code == 78
    assert raised.value.next_step
    return raised.value


def test_a_manifest_is_read(write):
    job = read_job(write(JOB))
    assert job.metadata.name == "sentiment-1"
    assert job.spec.dataset.train.uri == "file:///data/train.jsonl"
    assert job.spec.hyperparameters.max_sequence_length == 1024


def test_json_is_read_too(write):
    assert read_job(write(JOB)) == read_job(write(json.dumps(yaml.safe_load(JOB))))


def test_other_kinds_are_passed_over_and_several_jobs_are_found(write):
    other = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\n"
    path = write(f"---\n{other}---\n{JOB}---\n---\n{JOB.replace('sentiment-1', 'sentiment-2')}")
    assert [job.metadata.name for job in read_jobs(path)] == ["sentiment-1", "sentiment-2"]
    with pytest.raises(TrainerError, match=r"job\.yaml has 2 FineTuneJobs: sentiment-1, sentiment-2"):
        read_job(path)


@pytest.mark.parametrize(("written", "seed"), [("08", 8), ("09_0", 90), ("07", 7), ("0X1F", 31), ("0o17", 15)])
def test_whole_numbers_are_read_as_kubectl_reads_them(write, written, seed):
    job = read_job(write(JOB + f"  hyperparameters: {{seed: {written}, packing: n}}\n"))
    assert (job.spec.hyperparameters.seed, job.spec.hyperparameters.packing) == (seed, False)


@pytest.mark.parametrize("number", ["2e-4", "2.0e-4", "0.0002", "+2E-4"])
def test_numbers_are_read_as_kubernetes_reads_them(write, number):
    job = read_job(write(JOB + f"  hyperparameters: {{learningRate: {number}, epochs: 1}}\n"))
    assert job.spec.hyperparameters.learning_rate == 0.0002


@pytest.mark.parametrize(
    "metadata",
    [
        f"name: {'a' * 253}",
        f"name: {'a' * 64}.b",
        "name: a, labels: {a.b/C: X_1.y, d: ''}",
        "name: a, annotations: {A.B/c: ' x', d: ''}",
    ],
)
def test_names_and_labels_that_the_api_server_takes_are_taken(write, metadata):
    assert read_job(write(JOB.replace("name: sentiment-1, annotations: {a: b}", metadata))).metadata.name.startswith(
        "a"
    )


@pytest.mark.parametrize("kind", ["FineTuneJob", "ModelDeployment"])
def test_two_objects_of_one_name_in_a_file_are_refused_with_both_lines(write, kind):
    """The second would be applied over the first: a job's spec cannot be changed, and of the others the last wins."""
    other = (
        "apiVersion: finetune.dev/v1alpha1\nkind: ModelDeployment\nmetadata: {name: a}\nspec: {modelRef: {name: a}}\n"
    )
    text = {"FineTuneJob": JOB, "ModelDeployment": other}[kind]
    with pytest.raises(TrainerError, match=rf"job\.yaml line \d+: {kind} \S+ is on line 1 already") as raised:
        read_all(write(f"{text}---\n{text}"))
    assert raised.value.next_step
    apart = text.replace("metadata: {", "metadata: {namespace: b, ")
    assert read_all(write(f"{text}---\n{apart}"))


@pytest.mark.parametrize("indent", [None, 2])
def test_json_objects_one_behind_the_other_are_read_as_kubectl_reads_them(write, indent):
    jobs = [yaml.safe_load(JOB.replace("sentiment-1", name)) for name in ("a", "b")]
    text = "\n".join(json.dumps(job, indent=indent) for job in jobs)
    assert [job.metadata.name for job in read_jobs(write(text))] == ["a", "b"]
    lines = text.count("\n") + 1
    assert f"job.yaml line {lines + 1}: FineTuneJob b is on line" in said_of_all(
        write(f"{text}\n{json.dumps(jobs[1])}")
    )


def said_of_all(path):
    with pytest.raises(TrainerError) as raised:
        read_all(path)
    return raised.value.message


def test_numbers_as_names_of_somebody_elses_objects_are_nobodys_mistake(write):
    other = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata:\n  80:\n  443:\n"
    assert read_jobs(write(f"{other}---\n{JOB}"))


def test_two_objects_with_generated_names_are_two(write):
    text = JOB.replace("name: sentiment-1, annotations", "generateName: sentiment-, annotations")
    assert len(read_jobs(write(f"{text}---\n{text}"))) == 2


@pytest.mark.parametrize(
    "more", ["uid: a", "finalizers: [a/b]", "creationTimestamp: 2026-01-01T00:00:00Z", "generation: 1"]
)
def test_what_kubernetes_keeps_in_metadata_is_passed_over(write, more):
    assert read_job(write(JOB.replace("name: sentiment-1,", f"name: sentiment-1, {more},")))


def test_a_date_is_text(write):
    assert read_job(write(JOB + "  retryNonce: 2026-11-21\n")).spec.retry_nonce == "2026-11-21"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("baseModel:", "basemodel:"), "spec.basemodel: no such field; did you mean baseModel?"),
        (("baseModel:", "basemodel:"), "spec.baseModel is required: Base model, for example "),
        (("train: {uri:", "train: {url:"), "spec.dataset.train.url: no such field; did you mean uri?"),
        (("train: {uri:", "train: {url:"), "spec.dataset.train.uri is required"),
        (("train:", "trian:"), "spec.dataset.trian: no such field; did you mean train?"),
        (("dataset:", "zzz:"), "spec.zzz: no such field; there are activeDeadlineSeconds, adopt, artifact"),
        (("metadata: {name: sentiment-1, annotations: {a: b}}", "metadata: {}"), "metadata.name is required"),
        (("v1alpha1", "v1"), "apiVersion: input should be 'finetune.dev/v1alpha1'"),
        (("modelRef: {name: sentiment}", "modelRef: sentiment"), "line 7: spec.modelRef: write {name: …} instead"),
        (("{name: sentiment}", "{name: 3}"), "spec.modelRef.name: input should be a valid string"),
        (("file:///data", "ftp://data"), "spec.dataset.train.uri: ftp: not a place that a dataset is read from"),
        (("file:///data", "s3://b/../c"), "spec.dataset.train.uri: the uri has a '..' segment"),
        (("file:///data", "https://user:pw@host"), "spec.dataset.train.uri: the uri holds credentials"),
        (("file:///data", "file://data"), "spec.dataset.train.uri: a file of this machine needs file:// and"),
        (("file:///data", "/data"), "that is for `check` and `run` alone, and a cluster reads pvc://CLAIM/PATH"),
        (("file:///data/train.jsonl", "train.jsonl"), "needs file:// and an absolute path, with three slashes"),
        (("kind: FineTuneJob", "kind: Job"), "job.yaml line 2: finetune.dev has no kind Job"),
        (("apiVersion: finetune.dev/v1alpha1", "apiVersion: v1"), "line 1: apiVersion: input should be"),
        (("kind:", " kind:"), "job.yaml line 2: "),
        (("kind:", "kind: a\nkind:"), "job.yaml line 3: kind occurs twice"),
        (("kind:", f"{JOB}kind:"), "apiVersion occurs twice: before a second object goes a line ---"),
        (("kind: FineTuneJob", "kind: FinetuneJob"), "has no kind FinetuneJob; did you mean FineTuneJob?"),
        (("sentiment-1", "{{ name }}"), "job.yaml line 3: a key is not text"),
        (("sentiment-1", "a\x07b"), "job.yaml line 3: it has a character that YAML does not allow"),
        (("sentiment-1", "!!binary aGk="), "job.yaml line 3: there is a tag such as !vault"),
        (("sentiment-1", "Sentiment_1"), "metadata.name: this is not a name of an object"),
        (("baseModel: Hugging", "baseModel: /Hugging"), "spec.baseModel: baseModel is the name of a model, such as"),
        (("{name: sentiment}", "{name: Sentiment}"), "spec.modelRef.name: modelRef.name becomes the name of a Service"),
        (("baseModel:", "base_model:"), "spec.base_model: no such field; did you mean baseModel?"),
        (("file:///data", "https://[::1/data"), "spec.dataset.train.uri: the uri cannot be read"),
        (("file:///data", "hf://owner/name"), "spec.dataset.train.uri: write hf://datasets/OWNER/NAME/PATH"),
        (("file:///data", "PVC://data"), "spec.dataset.train.uri: the scheme is in lower case: write pvc://"),
        (("file:///data", "configMap://data"), "spec.dataset.train.uri: the scheme is in lower case: write configmap"),
        (
            ("\n  baseModel", "\n  hyperparameters: {seed: 0755}\n  baseModel"),
            "line 6: 0755 is read as octal, which is 493",
        ),
        (
            ("annotations: {a: b}", "annotations: {a: 1}"),
            "line 3: metadata.annotations.a: input should be a valid",
        ),
        (("annotations: {a: b}", "labels: {a: b c}"), "line 3: metadata.labels: a: this is not a label"),
        (("annotations: {a: b}", f"labels: {{a: {'b' * 64}}}"), "line 3: metadata.labels: a: this is not a label"),
        (("{name: sentiment}", "{name: y}"), "spec.modelRef.name: input should be a valid string"),
        (("{name: sentiment}", "{name: =}"), "spec.modelRef.name: modelRef.name becomes the name of a Service"),
        (("\n  baseModel", "\n\tbaseModel"), "job.yaml line 6: there is a tab at its beginning"),
        (("annotations: {a: b}", "lables: {a: b}"), "line 3: metadata.lables: no such field; did you mean labels?"),
        (("name: sentiment-1", "nmae: sentiment-1"), "line 3: metadata.nmae: no such field; did you mean name?"),
        (("annotations: {a: b}", "spec: {}"), "line 3: metadata.spec: no such field; here it is spec"),
        (("annotations: {a: b}", "annotations: {my team: b}"), "metadata.annotations: my team: this is not a key"),
        (("annotations: {a: b}", "labels: {my team: b}"), "line 3: metadata.labels: my team: this is not a label"),
        (("annotations: {a: b}", "labels: {A.b/c: d}"), "line 3: metadata.labels: A.b/c: this is not a label"),
        (("annotations: {a: b}", "annotations: {a..b/c: d}"), "metadata.annotations: a..b/c: this is not a key"),
        (("annotations: {a: b}", "labels: {/a: b}"), "line 3: metadata.labels: /a: this is not a label"),
        (("annotations: {a: b}", "labels: [a]"), "line 3: metadata.labels: write names with their values below it"),
        (("\n  baseModel", "\n  {{- toYaml .x }}\n  baseModel"), "; line 6 has a placeholder of a template"),
        (("kind:", "{# a note #}\nkind:"), "; line 2 has a placeholder of a template"),
        (("{name: sentiment}", "{name: ${MODEL}}"), "; line 7 has a placeholder of a template"),
        (("  baseModel", "\u00a0\u00a0baseModel"), "; line 6 has a character that only looks like a space (U+00A0)"),
        (("baseModel", "base\u200bModel"), "spec.base\\u200bModel: no such field; did you mean baseModel?"),
    ],
)
def test_a_wrong_manifest_is_refused_by_field(write, change, said):
    assert said in refusal(write(JOB.replace(*change, 1))).message


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("method: QLora", "spec.method: input should be 'LoRA', 'QLoRA' or 'Full'; did you mean QLoRA? (LoRA: train"),
        ("hyperparameters: {epochs: 0}", "spec.hyperparameters.epochs: input should be greater than 0"),
        ("hyperparameters: {batchsize: 4}", "spec.hyperparameters.batchsize: no such field; did you mean batchSize?"),
        ("hyperparameters: {batchSize: 4, microBatchSize: 3}", "microBatchSize must be a divisor of batchSize"),
        ("method: Full\n  lora: {r: 8}", "spec.lora: lora has no meaning with method Full"),
        ("preference: {beta: 0}", "spec.preference.beta: input should be greater than 0"),
        ("preference: {loss: ipo}", "spec.preference.loss: no such field; there are beta, labelSmoothing"),
        (
            "preference: {}\n  code: {configMapRef: {name: a, key: b.py}}",
            "spec.preference: it is a part of the built-in recipe",
        ),
        ("lora: {alpha: x}", "spec.lora.alpha: input should be a valid integer"),
        ("evaluation: {metrics: [chrF, chrF]}", "spec.evaluation: name each metric once"),
        (
            "evaluation: {baselines: [{}]}",
            "spec.evaluation.baselines[0]: write one of zeroShot",
        ),
        (
            "evaluation: {baselines: [{zeroShot: {}}, {zeroShot: {}}]}",
            "name each of zeroShot, fewShot and activeVersion",
        ),
        ("evaluation: {baselines: [{fewShot: {examples: 0}}]}", "spec.evaluation.baselines[0].fewShot.examples: input"),
        ("evaluation: {judge: {url: 'http://api.example.com', model: m}}", "spec.evaluation.judge.url: "),
        ("evaluation: {metrics: [bleu]}", "spec.evaluation.metrics[0]: input should be 'exactMatch'"),
        ("hyperparameters: {epochs: '3'}", "spec.hyperparameters.epochs: input should be a valid number"),
        ("suspend: 1", "spec.suspend: input should be a valid boolean"),
        ("resources: {cpu: lots}", "spec.resources.cpu: this is not a quantity"),
        ("resources: {memory: -1Gi}", "spec.resources.memory: this is not a quantity"),
        ("resources: {memory: 16}", "spec.resources.memory: a number alone is bytes, and this is less than 64Ki"),
        ("resources: {memory: 16m}", "spec.resources.memory: a number alone is bytes, and this is less than 64Ki"),
        ("resources: {cpu: 4000M}", "spec.resources.cpu: no node has so many cores; did you mean 4000m?"),
        ("resources: {cpu: 0}", "spec.resources.cpu: 0 asks for no CPU"),
        ("resources: {cpu: 0m}", "spec.resources.cpu: 0 asks for no CPU"),
        ("resources: {memory: 0}", "spec.resources.memory: a number alone is bytes, and this is less than 64Ki"),
        ("resources: {cpu: 4Gi}", "spec.resources.cpu: no node has so many cores"),
        ("resources: {cpu: 1e6}", "spec.resources.cpu: no node has so many cores"),
        ("budget: {maxCost: 25 USD}", "spec.budget.maxCost: write the amount alone"),
        ("budget: {maxCost: '25', currency: usd}", "spec.budget.currency: write the ISO 4217 code"),
        ("resources: {cpu: []}", "spec.resources.cpu: write one number or text, no list"),
        ("resources: {nodes: 0}", "spec.resources.nodes: input should be greater than or equal to 1"),
        ("resources: {nodes: 17}", "spec.hyperparameters.batchSize: 17 GPUs or nodes are more than a step has rows"),
        ("resources: {nodes: 3, gpusPerNode: 8}", "spec.hyperparameters.batchSize: 24 GPUs or nodes are more than"),
        (
            "resources: {nodes: 2}\n  code: {configMapRef: {name: a, key: b.py}}",
            "spec.resources.nodes: code runs in one pod",
        ),
        ("resources: {gpus: 1}", "spec.resources.gpus: no such field; did you mean gpusPerNode?"),
        ("resources: {gpu: 1}", "spec.resources.gpu: no such field; did you mean gpusPerNode?"),
        ("resources: {shm: 1}", "spec.resources.shm: no such field; there are cpu, ephemeralStorage, gpusPerNode"),
        ("resources: {memory: 10000000000000000000}", "spec.resources.memory: so large a number needs a unit"),
        ("resources: {cpu: 0.5}", 'spec.resources.cpu: a fraction needs quotes or the unit m: write "0.5" or 500m'),
        ("epochs: 3", "spec.epochs: no such field; here it is spec.hyperparameters.epochs"),
        ("hyperparameters: {lora_r: 8}", "spec.hyperparameters.lora_r: no such field; here it is spec.lora.r"),
        ("lora: {lora_alpha: 8}", "spec.lora.lora_alpha: no such field; did you mean alpha?"),
        ("optimizer: adamw_8bit", "spec.optimizer: no such field; the optimizer is AdamW"),
        (
            "nodeSelector: {a: b}",
            "spec.nodeSelector: no such field; pods are configured in the connection's huggingFace.pod",
        ),
        ("output: x", "spec.output: no such field; weights are kept where the connection's huggingFace.artifacts says"),
        ("evaluation: {baselines: [{fewShot: {n: 4}}]}", "fewShot.n: no such field; there is only examples"),
        ("evaluation: {metrics: []}", "spec.evaluation.metrics: list should have at least 1 item, not 0"),
        ("evaluation: {on: true}", "spec.evaluation.on: no such field; there are baselines"),
        ("evaluation: {baselines: [{fewShot: {shots: 4}}]}", "fewShot.shots: no such field; there is only examples"),
        ("evaluation: {judge: {url: 'http://x', model: m}}", "spec.evaluation.judge.url: write the root of an OpenAI-"),
        (
            "evaluation: {baselines: [{endpoint: {name: a, url: 'http://x', model: m}}]}",
            "spec.evaluation.baselines[0].endpoint.url: write the root of an OpenAI-compatible API, such as",
        ),
        ("trackers: {tensorBoard: true}", "spec.trackers.tensorBoard: write {}: it has no fields"),
        ("hyperparameters: {batchSize: '8'}", "batchSize: input should be a valid integer: write it without quotes"),
        ("suspend: 'true'", "spec.suspend: input should be a valid boolean: write it without quotes"),
        (
            "activeDeadlineSeconds: 6h",
            "activeDeadlineSeconds: input should be a valid integer: write the number alone, without a unit (Seconds",
        ),
        ("budget: {maxCost: 25}", "spec.budget.maxCost: input should be a valid string: write it in quotes"),
        ("retryNonce: 1", "spec.retryNonce: input should be a valid string: write it in quotes"),
        ("method: full", "'Full'; did you mean Full? (LoRA: train"),
        ("method: Q-LoRA", "'Full'; did you mean QLoRA? (LoRA: train"),
        ("method: DPO", "'Full'; learning from two answers is spec.preference: {}, with any method (LoRA"),
        ("method: [LoRA]", "'Full': write one of them alone (LoRA"),
        ("evaluation: {baselines: [zeroShot]}", "spec.evaluation.baselines[0]: write {zeroShot: {}}"),
        (
            "evaluation: {baselines: [{fewShot: 4}]}",
            "baselines[0].fewShot: write {examples: …} instead of a value alone",
        ),
        ("method: SFT", "'Full'; each of them learns from the answers of the rows: leave method out for LoRA (LoRA"),
        ("hyperparameters: {precision: bf16}", "'Float32'; did you mean BFloat16?"),
        ("hyperparameters: {schedule: constant_with_warmup}", "'Constant'; did you mean Constant?"),
        ("hyperparameters: {schedule: cosin}", "'Constant'; did you mean Cosine?"),
        ("evaluation: {metrics: [ExactMatch, rouge]}", "'jsonFields'; did you mean exactMatch?; line"),
        (
            "evaluation: {metrics: rougeL}",
            "spec.evaluation.metrics: input should be a valid list: write [ and ] around",
        ),
        ("evaluation: {baselines: {zeroShot: {}}}", "input should be a valid list: write - before each item"),
        ("activeDeadlineSeconds: 6h", "input should be a valid integer: write the number alone, without a unit"),
        ("lora: {dropout: 5%}", "spec.lora.dropout: input should be a valid number: write the number alone"),
        ("hyperparameters: {maxSequenceLength: 4k}", "a valid integer: write the number alone, without a unit"),
        ("hyperparameters: {batchSize: auto}", "a valid integer: leave the field out for its default"),
        (
            "hyperparameters: {epochs: .nan}",
            "spec.hyperparameters.epochs: input should be less than or equal to 1000: write a",
        ),
        ("suspend: 'True'", "spec.suspend: input should be a valid boolean: write true or false, without quotes"),
        ("suspend: 0", "spec.suspend: input should be a valid boolean: write true or false"),
        ("lora: {targetModules: [q_proj]}", "spec.lora.targetModules: input should be a valid string: write one text"),
        *(
            (f"lora: {{targetModules: {text}}}", "spec.lora.targetModules: targetModules is all-linear, or names of")
            for text in ("'.*_proj'", "q_proj|v_proj", "'(q'", "q_proj v_proj", "', ,'", "'[q_proj]'", "q_proj;v_proj")
        ),
        ("lora: {targetModules: 'q_proj,all-linear'}", "spec.lora.targetModules: write all-linear alone"),
        ("code: train.py", "spec.code: write {configMapRef: …} instead of a value alone"),
        ("lora: [{r: 8}]", "spec.lora: write its fields, no list: alpha, dropout"),
        ("hyperparameters: {epochs: 1,5}", "line 10: 5 stands alone: is the comma before it one within a number?"),
        (
            "hyperparameters: {batchSize: 1,000}",
            "line 10: 000 stands alone: is the comma before it one within a number?",
        ),
        ("hyperparameters: {learningRate: [1e-4]}", "should be a valid number: write one number, no list"),
        ("resources: {gpusPerNode: {a: 1}}", "a valid integer: write the number alone, without fields below it"),
        ("resources: {memory: 16GB}", "spec.resources.memory: this is not a quantity; did you mean 16Gi?"),
        ("resources: {memory: '1,5 gb'}", "spec.resources.memory: this is not a quantity; did you mean 1.5Gi?"),
        (
            "hubTokenSecretRef: {secretKeyRef: {name: a, key: b}}",
            "secretKeyRef: no such field; its fields belong directly in",
        ),
        ("trackers: {mlflow: {uri: http://a}}", "spec.trackers.mlflow.uri: no such field; did you mean trackingURI?"),
        ("hyperparameters: {schedule: cosine_with_restarts}", "'Constant'; did you mean Cosine?"),
        ("instance_count: 2", "spec.instance_count: no such field; here it is spec.resources.nodes"),
        ("roleArn: a", "spec.roleArn: no such field; roles, buckets and disks are in the connection"),
        ("jobName: a", "spec.jobName: no such field; the job's name is metadata.name"),
        (
            "trainer: {numNodes: 2}",
            "spec.trainer: no such field; the connection's trainerImage is the code environment",
        ),
        ("suffix: mine", "spec.suffix: no such field; did you mean modelRef?"),
        ("trainingFile: a", "spec.trainingFile: no such field; here it is spec.dataset.train.uri"),
        (
            "lora: {modulesToSave: [a]}",
            "spec.lora.modulesToSave: no such field; only the adapters are trained",
        ),
        ("hyperparameters: {early_stopping_patience: 2}", "no such field; training runs to its end"),
        (
            "hubTokenSecretRef: {secretName: a, key: b}",
            "hubTokenSecretRef.secretName: no such field; did you mean name?",
        ),
        (
            "hubTokenSecretRef: {name: a, key: b, namespace: c}",
            "hubTokenSecretRef.namespace: no such field; leave it out: connections have no namespace",
        ),
    ],
)
def test_a_wrong_value_is_refused_by_field(write, more, said):
    assert said in refusal(write(f"{JOB}  {more}\n")).message


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("data/train.jsonl", "{cwd}/data/train.jsonl"),
        ("./data/../train.jsonl", "{cwd}/train.jsonl"),
        ("file://data/train.jsonl", "{cwd}/data/train.jsonl"),
        ("file:/data/a b.jsonl", "/data/a%20b.jsonl"),
        ("file://localhost/data/train.jsonl", "/data/train.jsonl"),
        ("/data/train.jsonl", "/data/train.jsonl"),
        ("~/train.jsonl", "{home}/train.jsonl"),
    ],
)
def test_a_path_is_answered_with_the_uri_that_it_means(write, written, meant):
    error = refusal(write(JOB.replace("file:///data/train.jsonl", written)))
    assert error.next_step == f"Write file://{meant.format(cwd=Path.cwd(), home=Path.home())}"


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (("  baseModel:", "  basemodel:"), 6),
        (("{name: local-gpu}", "{name: 3}"), 5),
        (("  modelRef: {name: sentiment}\n", ""), 4),  # what is not there stands where it belongs
        (("file:///data", "ftp://data"), 9),
        (("{name: sentiment}", "{name: Sentiment}"), 7),
        (("sentiment-1", "Sentiment_1"), 3),
    ],
)
def test_a_wrong_field_is_named_with_file_and_line(write, change, line):
    text = "apiVersion: v1\nkind: Secret\n---\n" + JOB.replace(*change)
    assert f"line {line + 3}: spec" in refusal(write(text)).message.replace("metadata", "spec")


def test_jobs_in_a_list_are_found_and_a_status_is_passed_over(write):
    jobs = [yaml.safe_load(JOB) | {"status": {"phase": "Running"}}, yaml.safe_load(JOB.replace("sentiment-1", "b"))]
    assert len(read_jobs(write(yaml.safe_dump({"apiVersion": "v1", "kind": "List", "items": jobs})))) == 2


def test_a_null_counts_as_left_out(write):
    job = read_job(write(JOB + "  hyperparameters:\n  lora: {r: null}\n"))
    assert (job.spec.hyperparameters.batch_size, job.spec.lora.r) == (16, 16)
    assert (
        "spec.baseModel is required" in refusal(write(JOB.replace("HuggingFaceTB/SmolLM2-135M-Instruct", ""))).message
    )


def test_a_name_that_the_api_server_makes_is_as_good_as_one(write):
    text = JOB.replace("name: sentiment-1, annotations", "generateName: sentiment-, annotations")
    assert read_job(write(text)).metadata.name == "sentiment-xxxxx"
    with pytest.raises(TrainerError, match=r"metadata\.name: this is not a name of an object"):
        read_job(write(text.replace("sentiment-,", "Sentiment_,")))


def test_many_errors_are_bounded(write):
    error = refusal(write(JOB + "".join(f"  field{n}: 1\n" for n in range(300))))
    assert "; and 290 more" in error.message
    assert len(error.message) <= 4096


def test_credentials_in_a_uri_are_never_shown(write):
    error = refusal(write(JOB.replace("file:///data", "https://user:hunter2@host")))
    assert "hunter2" not in error.message + (error.next_step or "")


def test_aliases_do_not_multiply_what_is_read(write):
    """Each list names the one before nine times: written out this would be 9^30 elements."""
    bomb = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 30))
    assert "a0: no such field" in refusal(write(bomb + JOB)).message
    assert "spec.connectionRef.name" in refusal(write(JOB.replace("{name: local-gpu}", "&x {name: *x}"))).message


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ("columns: {text: prompt}", "spec.dataset.columns.text: no such field; the other way round: prompt: text"),
        ("columns: {question: q}", "spec.dataset.columns.question: no such field; did you mean prompt?"),
        ("columns: {output: q}", "spec.dataset.columns.output: no such field; did you mean completion?"),
        ("columns: [prompt]", "spec.dataset.columns: write its fields, no list: chosen, completion"),
        ("validation: pvc://a/b.csv", "spec.dataset.validation: write {uri: …} instead of a value alone"),
        ("validation: {path: pvc://a/b.csv}", "spec.dataset.validation.path: no such field; did you mean uri?"),
        ("test: {uri: pvc://a/b.csv, split: test}", "spec.dataset.test.split: no such field; split the rows"),
        ("test: {uri: pvc://a/b.csv, columns: {}}", "test.columns: no such field; here it is spec.dataset.columns"),
        ("test: {s3: {bucket: b}}", "test.s3: no such field; a file is named by its uri, such as pvc://CLAIM/PATH,"),
        ("test: {configMapRef: {name: b, key: c}}", "test.configMapRef: no such field; a file is named by its uri"),
        (
            "test: {file: {uri: pvc://a/b.csv}}",
            "test.file: no such field; its fields belong directly in spec.dataset.test",
        ),
        ("test: {uri: pvc://a/b.csv, format: jsonl}", "'Parquet'; did you mean JSONLines?"),
    ],
)
def test_a_wrong_dataset_is_refused_with_what_was_meant(write, part, said):
    assert said in refusal(write(f"{JOB}    {part}\n")).message


def test_a_value_of_no_type_that_a_field_has_is_told_once(write):
    message = refusal(write(f"{JOB}  resources: {{memory: [16Gi]}}\n")).message
    assert message.count("spec.resources.memory") == 1
    assert "spec.resources.memory: write one number or text, no list" in message


def test_the_value_of_a_secret_that_stands_where_its_name_belongs_is_not_told(write):
    message = refusal(write(f"{JOB}  hubTokenSecretRef: hf_SECRET\n")).message
    assert "SECRET" not in message


def test_the_fields_of_a_part_are_listed_once(write):
    message = refusal(write(f"{JOB}  field1: 1\n  field2: 2\n")).message
    assert "spec.field1: no such field; there are activeDeadlineSeconds, adopt" in message
    assert message.endswith("spec.field2: no such field")


def test_names_of_other_tools_lead_to_fields_that_are_there(write):
    for place, names in PLACES.items():
        said = refusal(write(f"{JOB}  {names[0]}: 1\n")).message
        assert place.rpartition(".")[2] in said, said


def test_who_names_a_data_set_of_a_hub_is_told_its_uri(write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hint = ", or hf://datasets/tatsu-lab/alpaca/PATH for a file of this data set of a hub"
    manifest = write(JOB.replace("file:///data/train.jsonl", "tatsu-lab/alpaca"))
    for is_there in (False, True):
        with pytest.raises(TrainerError) as raised:
            read_job(manifest)
        assert raised.value.next_step.endswith(hint) != is_there
        (tmp_path / "tatsu-lab").mkdir(exist_ok=True)
        (tmp_path / "tatsu-lab/alpaca").touch()
