"""Names of a FineTuneJob's fields in other tools: Axolotl, LLaMA-Factory, TRL, transformers, peft, Kubeflow.

Only tables. docs/guides/other-tools.md tells users the same; a test compares them.
"""

from collections.abc import Collection, Mapping

from finetune_api.near_names import plain

_TEMPLATE = "the connection's huggingFace.podTemplate, which an admin writes"

_PLACES = {
    "spec.baseModel": (
        "model_name_or_path model_name model_id model base_model_name_or_path base_model_identifier pretrained "
        "pretrained_model_name_or_path foundation_model"
    ),
    "spec.dataset.train.uri": (
        "datasets dataset_name dataset_path train_file data_path data_files data path file url location source "
        "training_file train_data train_dataset dataset_uri training_data training_data_config training_dataset s3_uri "
        "dataset_dir data_source data_sources dataset_ref"
    ),
    "spec.connectionRef": "connection llm_connection",
    "spec.modelRef": "suffix output_model tuned_model fine_tuned_model custom_model_name",
    "spec.dataset.validation": (
        "eval val dev valid eval_dataset validation_file test_datasets validation_data validation_data_config eval_data"
    ),
    "spec.dataset.test": "test_data test_set test_file",
    "spec.dataset.secretRef": "credentials secret storage_credentials secret_name secret_ref credentials_secret",
    "spec.dataset.columns.prompt": "text_column prompt_column prompt_text_column dataset_text_field",
    "spec.method": (
        "adapter finetuning_type stage peft_type peft_method load_in_4bit load_in_8bit customization_type quantization "
        "peft fine_tune_type quantization_bit bnb_4bit_quant_type bnb_4bit_compute_dtype bnb_config "
        "quantization_config quantize"
    ),
    "spec.lora": "lora_config peft_config lora_parameters adapter_config",
    "spec.lora.r": "lora_r lora_rank rank",
    "spec.lora.alpha": "lora_alpha scale lora_scale",
    "spec.lora.dropout": "lora_dropout",
    "spec.lora.targetModules": "lora_target lora_target_modules lora_target_linear target_modules",
    "spec.lora.useRSLoRA": "use_rslora peft_use_rslora",
    "spec.lora.useDoRA": "use_dora peft_use_dora",
    "spec.lora.loraPlusRatio": "loraplus_lr_ratio loraplus_ratio",
    "spec.preference": "rl pref_loss pref_beta dpo dpo_beta",
    "spec.hyperparameters": "params parameters config training_args training_arguments training training_config",
    "spec.hyperparameters.epochs": (
        "num_train_epochs num_epochs n_epochs epoch epoch_count max_steps training_steps max_steps_per_epoch steps "
        "num_steps total_steps train_steps max_train_steps iterations iters"
    ),
    "spec.hyperparameters.seed": "random_state random_seed",
    "spec.hyperparameters.learningRate": "lr",
    "spec.hyperparameters.batchSize": "train_batch_size global_batch_size",
    "spec.hyperparameters.microBatchSize": (
        "per_device_train_batch_size per_device_batch_size train_micro_batch_size_per_gpu"
    ),
    "spec.hyperparameters.maxSequenceLength": (
        "sequence_len sequence_length cutoff_len max_seq_length max_seq_len max_length block_size model_max_length "
        "max_tokens seq_len context_length n_ctx max_prompt_length"
    ),
    "spec.hyperparameters.warmupRatio": "warmup_steps warmup learning_rate_warmup_steps num_warmup_steps",
    "spec.hyperparameters.schedule": "lr_scheduler lr_scheduler_type scheduler",
    "spec.hyperparameters.maxGradNorm": "gradient_clipping grad_clip clip_grad_norm",
    "spec.hyperparameters.precision": "bf16 fp16 tf32 dtype torch_dtype mixed_precision float16",
    "spec.hyperparameters.packing": "sample_packing pad_to_sequence_len",
    "spec.hyperparameters.checkpointSteps": (
        "save_steps saves_per_epoch save_strategy n_checkpoints save_every checkpoint_every save_interval "
        "checkpoint_interval"
    ),
    "spec.resources.gpusPerNode": "gpu gpus num_gpus gpu_count nproc_per_node num_proc_per_node nvidia.com/gpu",
    "spec.resources.nodes": "num_nodes nnodes num_workers workers replicas instance_count",
    "spec.resources.ephemeralStorage": "storage disk",
    "spec.resources": "limits requests resources_per_node resource_config",
    "spec.activeDeadlineSeconds": (
        "timeout timeout_seconds max_runtime_seconds max_run stopping_condition deadline max_runtime max_duration"
    ),
    "spec.code": "code_ref script entrypoint source_code",
    "spec.ttlSecondsAfterFinished": "ttl ttl_seconds",
    "spec.trackers": "report_to use_wandb logger integrations",
    "spec.trackers.wandb": "wandb_project wandb_entity wandb_run_name wandb_api_key",
    "spec.trackers.mlflow": "mlflow_tracking_uri mlflow_experiment_name",
    "spec.evaluation": "metrics_for_best_model compute_metrics eval_metrics",
    "spec.hubTokenSecretRef": "hf_token hub_token use_auth_token token",
    "spec.artifact.push": "push_to_hub hub_model_id push_to_hub_model_id hub export_hub_model_id",
    "spec.artifact.merge": "merge_lora merge_and_unload merge_adapter",
    "spec.suspend": "paused pause stopped",
}
"""Our fields, and their names elsewhere."""

_REMARKS = {
    "batchSize counts the rows of a whole step, microBatchSize those of one pass": (
        "gradient_accumulation_steps gradient_accumulation"
    ),
    "the optimizer is AdamW": (
        "optimizer optim adam_beta1 adam_beta2 adam_epsilon betas beta1 beta2 eps epsilon momentum optim_args "
        "optim_target_modules"
    ),
    "loss is computed on completions only": (
        "train_on_inputs train_on_responses_only completion_only_loss assistant_only_loss mask_prompt"
    ),
    "rows are shuffled, by hyperparameters.seed": "shuffle shuffle_seed data_seed",
    "every row of a file is used: name a smaller file for fewer": (
        "max_samples max_train_samples max_rows num_samples sample_size subset limit"
    ),
    "the layout of rows is recognised; map columns of other names in spec.dataset.columns": (
        "dataset_type data_format dataset_format chat_format formatting_func response_template"
    ),
    "a system message is a column of the rows, or one of their messages": "system_prompt system_message",
    "the trainer validates, logs and keeps checkpoints automatically": (
        "eval_steps eval_strategy evaluation_strategy logging_steps save_total_limit steps_per_eval steps_per_report "
        "val_batches evals_per_epoch eval_interval plot_loss logging_dir do_eval checkpoint checkpoints checkpointing"
    ),
    "the next attempt resumes from the last checkpoint automatically; a version is not a base model": (
        "resume_from_checkpoint resume_from resume auto_resume_from_checkpoints checkpoint_dir adapter_path "
        "adapter_name_or_path lora_model_dir"
    ),
    "preferences are compared with the base model as it was": "ref_model reference_model ref_free",
    "learning from rewards is not supported": (
        "grpo ppo reinforcement reward_model reward_funcs num_generations grader rlvr"
    ),
    "the connection's huggingFace.trustRemoteCode says whether a base model may run its own Python": (
        "trust_remote_code"
    ),
    "a job only trains; a FineTunedModel and its ModelDeployment say what is served, and where": (
        "deploy serve serving"
    ),
    "training runs to its end: look at status.loss and choose epochs": (
        "early_stopping early_stopping_patience load_best_model_at_end patience"
    ),
    "only the adapters are trained, or with method Full everything": (
        "modules_to_save bias lora_modules_to_save lora_bias unfrozen_parameters freeze_layers"
    ),
    "the trainer derives this from the base model": (
        "task_type model_type tokenizer tokenizer_type tokenizer_name init_lora_weights fan_in_fan_out padding_side "
        "padding"
    ),
    "the trainer decides this itself (see status.memory)": (
        "gradient_checkpointing use_gradient_checkpointing activation_checkpointing deepspeed fsdp fsdp_config compile "
        "torch_compile zero_optimization zero_stage offload device_map use_liger_kernel liger_kernel use_unsloth "
        "unsloth lora_on_cpu grad_checkpoint dataloader_num_workers preprocessing_num_workers group_by_length "
        "ddp_find_unused_parameters"
    ),
    "the attention kernel is chosen to suit model and GPU": "flash_attention flash_attn attn_implementation",
    "the base model's own chat template is used": "chat_template prompt_template special_tokens",
    f"the base model's own chat template is used, and pods are configured in {_TEMPLATE}": "template",
    "split the rows beforehand, and name the other file in spec.dataset.validation or test": (
        "val_set_size val_size test_size validation_split test_split split splits"
    ),
    "weights are kept where the connection's huggingFace.artifacts says": "output_dir output save_dir",
    "the connection's trainerImage is the code environment; Python of your own is spec.code": (
        "image command args runtime_ref trainer"
    ),
    "roles, buckets and disks are in the connection": (
        "role_arn execution_role output_data_config volume_size use_spot_instances"
    ),
    "the job's name is metadata.name": "name job_name run_name",
    "address and keys of a provider are in the connection, which an admin writes": (
        "api_key api_key_secret_ref base_url endpoint region"
    ),
    "the connection that connectionRef names says where a job is trained": "provider backend platform",
    "a job is one pod for each of resources.nodes": (
        "parallelism completions pytorch_replica_specs replica_specs restart_policy run_policy elastic_policy "
        "initializer"
    ),
    "a job runs once: to repeat it, apply one with a new name each time": "cron cron_schedule",
    f"pods are configured in {_TEMPLATE}": (
        "env node_selector tolerations affinity service_account_name priority_class_name labels image_pull_secrets "
        "runtime_class_name volumes volume_mounts pod_template pod_spec_overrides gpu_type accelerator accelerator_type"
    ),
    f"the queue is named in {_TEMPLATE}": "queue_name queue",
    "the connection's huggingFace.maxRetries says how often a lost pod is started again": (
        "backoff_limit max_retries retries retry_policy"
    ),
}
"""Hints for names without an equivalent here."""


_COUNTED_OTHERWISE = {
    "it counts passes over the data, of which one has rows / batchSize steps": (
        "max_steps training_steps steps num_steps total_steps train_steps max_train_steps iterations iters"
    ),
    "it is a fraction of all steps, such as 0.03": "warmup_steps learning_rate_warmup_steps num_warmup_steps",
    "it counts optimizer steps": "saves_per_epoch n_checkpoints save_strategy",
    "QLoRA loads the base model in 4 bits": (
        "load_in_4bit quantization quantization_bit quantization_config bnb_config bnb_4bit_quant_type "
        "bnb_4bit_compute_dtype"
    ),
    "QLoRA loads the base model in 4 bits; 8 bits are not supported": "load_in_8bit",
    "BFloat16 is supported, float16 is not": "fp16 float16",
    "elsewhere it is what alpha / r is here": "scale lora_scale",
}
"""Differences between our field and its equivalents: another meaning, or other values."""


_BY_BLOCK = "the provider is chosen by its block, such as openAI or huggingFace"
_KEYS = "keys are in a Secret of the operator's namespace, which the provider's block names"
_HUB = "a hub's token is a job's hubTokenSecretRef, and its mirror is HF_ENDPOINT in the Secret of a job's data"
_ONE_NAMESPACE = "write matchLabels: {kubernetes.io/metadata.name: NAME} for one by its name"
OF_CONNECTIONS: dict[str, str] = {
    **dict.fromkeys(("provider", "type", "kind"), _BY_BLOCK),
    **dict.fromkeys(("namespaces", "allowednamespaces"), "here it is spec.namespaceSelector"),
    **dict.fromkeys(("matchname", "matchnames"), _ONE_NAMESPACE),
    **dict.fromkeys(
        ("local", "cluster", "incluster", "oncluster", "kubernetes", "selfhosted"), "here it is huggingFace"
    ),
    "aws": "here it is bedrock or sageMaker",
    **dict.fromkeys(
        ("anthropic", "vertex", "vertexai", "gcp", "google", "together", "fireworks", "mistral", "compatible"),
        "a service with OpenAI's fine-tuning API is openAI, with its baseURL, and others are not there",
    ),
    **dict.fromkeys(("accesskeyid", "secretaccesskey", "clientsecret", "password"), _KEYS),
    "token": f"{_KEYS}; {_HUB}",
    **dict.fromkeys(("hftoken", "hubtoken", "tokensecretref", "hftokensecretref", "hubtokensecretref", "mirror"), _HUB),
    **dict.fromkeys(
        ("deniedmodels", "blockedmodels", "excludedmodels"),
        "allowedModels names those that are allowed, and none can be excepted",
    ),
    **dict.fromkeys(
        ("maxconcurrentjobs", "quota", "quotas", "ratelimit", "ratelimits"),
        "teams are limited by a ResourceQuota of their namespace, or by Kueue",
    ),
    **dict.fromkeys(("queue", "localqueue"), "here it is podTemplate.queueName"),
    "serviceaccount": "here it is podTemplate.serviceAccountName",
    **dict.fromkeys(("pullsecret", "pullsecrets"), "here it is podTemplate.imagePullSecrets"),
    **dict.fromkeys(("storage", "output", "outputdir"), "here it is huggingFace.artifacts.uri"),
    "spotinstances": "here it is spot",
    **dict.fromkeys(("tenantid", "clientid", "profile", "sessiontoken"), _KEYS),
    **dict.fromkeys(("model", "deployment"), "jobs name models, and fineTuning.allowedModels restricts them"),
    **dict.fromkeys(("headers", "proxy", "timeout"), "the operator's proxy and certificates are values of the chart"),
    **dict.fromkeys(("irsa", "instanceprofile"), "here it is podIdentity: true"),
    "managedidentity": "here it is workloadIdentity: true",
    "apiversion": "the operator knows which version of the API it speaks",
    "location": "the account has its own",
}
"""Hints for names in an LLMConnection that are not its fields."""

_SERVICE = "a Service of the object's name is made, and no Ingress"
OF_SERVING: dict[str, str] = {
    "openai": "a model at OpenAI needs no deployment, so there is nothing to write",
    **dict.fromkeys(("ingress", "route", "host", "hosts", "service", "servicetype", "port"), _SERVICE),
    **dict.fromkeys(
        ("autoscaling", "hpa", "minreplicas", "maxreplicas", "targetcpu"),
        "a HorizontalPodAutoscaler of your own sets huggingFace.replicas",
    ),
    **dict.fromkeys(
        ("scaletozero", "idletimeout", "idleseconds"), "write idle: {afterSeconds: 7200, action: ScaleToZero}"
    ),
    **dict.fromkeys(("image", "vllmimage", "trainerimage"), "images are those of the connection"),
    **dict.fromkeys(
        ("args", "env", "command", "nodeselector", "tolerations", "affinity", "runtimeclassname", "volumes", "labels"),
        f"pods are configured in {_TEMPLATE}",
    ),
    **dict.fromkeys(
        ("retention", "keepversions", "maxversions", "keep"), "how many are kept is a FineTunedModel's historyLimit"
    ),
    **dict.fromkeys(("connection", "provider"), "a version is served by the connection that it was made with"),
    **dict.fromkeys(("suspend", "paused", "stopped"), "write huggingFace: {replicas: 0}"),
    **dict.fromkeys(("auth", "authentication"), "here it is apiKeySecretRef"),
    "skuname": "here it is sku",
    **dict.fromkeys(("strategy", "rollingupdate", "canary"), "a new version answers before the old one stops"),
    **dict.fromkeys(
        ("rollback", "rollbackto", "pinned", "pin", "promote"),
        "a version is chosen by its number: activeVersion of a FineTunedModel, version of a ModelDeployment",
    ),
}
"""The same for a ModelDeployment and a FineTunedModel."""

_COLUMNS = {
    "prompt": "input question query text instruction user source",
    "completion": "output answer response label target assistant",
    "messages": "conversations conversation chat dialogue",
    "system": "system_prompt system_message context",
}
"""Keys of dataset.columns, and their names elsewhere."""

_VALUES = {
    "BFloat16": "bf16 bf16-mixed mixed bfloat",
    "Float32": "fp32 full float single 32",
    "JSONLines": "jsonl ndjson",
    "CSV": "tsv",
    "Parquet": "pq",
    "Constant": "constant_with_warmup none fixed off",
    "Cosine": "cosine_with_restarts cosine_with_min_lr cosine_annealing cosine_with_warmup",
    "Linear": "linear_with_warmup linear_decay",
    "Retain": "keep orphan preserve",
    "ProvisionedManaged": "ptu provisioned",
    "LoRA": "peft",
    "Full": "full_finetune full_finetuning full_fine_tuning full_parameter fft",
    "exactMatch": "accuracy em exact_match_accuracy",
    "tokenF1": "f1 squad",
    "rougeL": "rouge",
}
"""Our enum values, and their names elsewhere; differences in case and separators are handled without."""

_VALUE_HINTS = {
    "LoRA": {
        "that is LoRA with lora: {useDoRA: true}": "dora",
        "that is LoRA with lora: {useRSLoRA: true}": "rslora",
        "that is LoRA with lora: {loraPlusRatio: 16}": "loraplus lora+",
        "learning from rewards is not supported": "grpo ppo rloo rlvr reinforcement rft gspo",
        "a job learns answers to prompts, and no text alone": (
            "pretrain pretraining continued_pretraining continued_pre_training pt cpt"
        ),
        "that way of tuning is not supported": (
            "adalora galore loha lokr vera lisa ia3 prefix prefix_tuning prompt_tuning p_tuning ptuning freeze bitfit "
            "oft qoft pissa distillation distill"
        ),
    },
    "BFloat16": {
        "there is no float16: BFloat16 takes as much memory": "fp16 float16 half 16 fp16-mixed",
        "a base model of 4 bits is method: QLoRA": "int8 int4 4bit 8bit nf4 fp4 fp8 4 8",
    },
}
"""Hints for values without an equivalent, by one of the values that the field accepts."""


PREFERENCE = frozenset({"dpo", "ipo", "kto", "orpo", "simpo", "rlhf", "preference"})
"""Preference methods elsewhere; here preferences are not a method of their own."""

SUPERVISED = frozenset({"sft", "supervised", "finetune", "finetuning", "instructiontuning"})
"""Names for supervised fine-tuning, which every method here does."""


def _listed(table: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    return {key: tuple(words.split()) for key, words in table.items()}


def _inverted(table: Mapping[str, str]) -> dict[str, str]:
    return {plain(name): key for key, names in table.items() for name in names.split()}


PLACES, REMARKS, COUNTED_OTHERWISE = _listed(_PLACES), _listed(_REMARKS), _listed(_COUNTED_OTHERWISE)

_PLACE_OF, _COLUMN_OF, _MEANING_OF = _inverted(_PLACES), _inverted(_COLUMNS), _inverted(_VALUES)
_DIFFERENCE_OF, _HINT_FOR = _inverted(_COUNTED_OTHERWISE), _inverted(_REMARKS)
_HINT_FOR_VALUE = {
    (one, name): remark for one, remarks in _VALUE_HINTS.items() for name, remark in _inverted(remarks).items()
}


def place_of(name: str) -> str | None:
    """Our equivalent of another tool's field."""
    return _PLACE_OF.get(plain(name))


def hint_for(name: str) -> str | None:
    """The hint for another tool's field without an equivalent."""
    return _HINT_FOR.get(plain(name))


def column_of(name: str) -> str | None:
    """The key of dataset.columns with this name elsewhere."""
    return _COLUMN_OF.get(plain(name))


def meaning_of(value: str) -> str | None:
    """Our equivalent of another tool's enum value."""
    return _MEANING_OF.get(plain(value))


def difference_hint(name: str) -> str:
    """How our field differs from its equivalent elsewhere; "" if it does not."""
    return f" ({found})" if (found := _DIFFERENCE_OF.get(plain(name))) else ""


def hint_for_value(value: str, choices: Collection[str]) -> str | None:
    """The hint for another tool's enum value that a field with these choices does not accept."""
    return next((remark for one in choices if (remark := _HINT_FOR_VALUE.get((one, plain(value))))), None)
