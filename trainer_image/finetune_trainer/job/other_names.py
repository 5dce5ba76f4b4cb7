"""What fields of a FineTuneJob are called elsewhere: by Axolotl, LLaMA-Factory, TRL, transformers, peft, Kubeflow.

A table and nothing more. docs/guides/other-tools.md says the same to people; a test compares.
"""

from finetune_api.near_names import plain

_TEMPLATE = "the connection's huggingFace.podTemplate, which an admin writes"

PLACES: dict[str, tuple[str, ...]] = {
    "spec.baseModel": (
        "model_name_or_path",
        "model_name",
        "model_id",
        "model",
        "base_model_name_or_path",
        "base_model_identifier",
        "pretrained",
    ),
    "spec.dataset.train.uri": (
        "datasets",
        "dataset_name",
        "dataset_path",
        "train_file",
        "data_path",
        "data_files",
        "data",
        *("path", "file", "url", "location", "source", "training_file", "train_data", "train_dataset", "dataset_uri"),
        *("training_data", "training_data_config", "training_dataset", "s3_uri"),
    ),
    "spec.connectionRef": ("connection", "llm_connection"),
    "spec.modelRef": ("suffix", "output_model", "tuned_model", "fine_tuned_model", "custom_model_name"),
    "spec.dataset.validation": (
        *("eval", "val", "dev", "valid", "eval_dataset", "validation_file", "test_datasets"),
        *("validation_data", "validation_data_config"),
    ),
    "spec.method": (
        *("adapter", "finetuning_type", "stage", "peft_type", "peft_method", "load_in_4bit", "load_in_8bit"),
        *("customization_type", "quantization", "peft"),
    ),
    "spec.lora.r": ("lora_r", "lora_rank", "rank"),
    "spec.lora.alpha": ("lora_alpha",),
    "spec.lora.dropout": ("lora_dropout",),
    "spec.lora.targetModules": ("lora_target", "lora_target_modules", "lora_target_linear", "target_modules"),
    "spec.lora.useRSLoRA": ("use_rslora", "peft_use_rslora"),
    "spec.lora.useDoRA": ("use_dora", "peft_use_dora"),
    "spec.lora.loraPlusRatio": ("loraplus_lr_ratio", "loraplus_ratio"),
    "spec.preference": ("rl", "pref_loss", "pref_beta", "dpo", "dpo_beta"),
    "spec.hyperparameters": ("params", "parameters", "config", "training_args", "training_arguments"),
    "spec.hyperparameters.epochs": (
        *("num_train_epochs", "num_epochs", "n_epochs", "epoch", "epoch_count", "max_steps", "training_steps"),
        *("max_steps_per_epoch", "steps", "num_steps", "total_steps", "train_steps", "max_train_steps", "iterations"),
    ),
    "spec.hyperparameters.seed": ("random_state", "random_seed"),
    "spec.hyperparameters.learningRate": ("lr",),
    "spec.hyperparameters.batchSize": ("train_batch_size", "global_batch_size"),
    "spec.hyperparameters.microBatchSize": ("per_device_train_batch_size", "per_device_batch_size"),
    "spec.hyperparameters.maxSequenceLength": (
        *("sequence_len", "sequence_length", "cutoff_len", "max_seq_length", "max_seq_len", "max_length", "block_size"),
        *("model_max_length", "max_tokens", "seq_len", "context_length"),
    ),
    "spec.hyperparameters.warmupRatio": ("warmup_steps", "warmup"),
    "spec.hyperparameters.schedule": ("lr_scheduler", "lr_scheduler_type", "scheduler"),
    "spec.hyperparameters.maxGradNorm": ("gradient_clipping", "grad_clip", "clip_grad_norm"),
    "spec.hyperparameters.precision": ("bf16", "fp16", "tf32", "dtype", "torch_dtype", "mixed_precision", "float16"),
    "spec.hyperparameters.packing": ("sample_packing", "pad_to_sequence_len"),
    "spec.hyperparameters.checkpointSteps": ("save_steps", "saves_per_epoch", "save_strategy", "n_checkpoints"),
    "spec.resources.gpusPerNode": (
        *("gpu", "gpus", "num_gpus", "gpu_count", "nproc_per_node", "num_proc_per_node", "nvidia.com/gpu"),
    ),
    "spec.resources.nodes": ("num_nodes", "nnodes", "num_workers", "workers", "replicas", "instance_count"),
    "spec.resources.ephemeralStorage": ("storage", "disk"),
    "spec.resources": ("limits", "requests", "resources_per_node"),
    "spec.activeDeadlineSeconds": ("timeout", "timeout_seconds", "max_runtime_seconds", "max_run"),
    "spec.ttlSecondsAfterFinished": ("ttl", "ttl_seconds"),
    "spec.trackers": ("report_to", "use_wandb", "logger", "integrations"),
    "spec.trackers.wandb": ("wandb_project", "wandb_entity", "wandb_run_name", "wandb_api_key"),
    "spec.trackers.mlflow": ("mlflow_tracking_uri", "mlflow_experiment_name"),
    "spec.evaluation": ("metrics_for_best_model", "compute_metrics", "eval_metrics"),
    "spec.hubTokenSecretRef": ("hf_token", "hub_token", "use_auth_token", "token"),
    "spec.artifact.push": ("push_to_hub", "hub_model_id", "push_to_hub_model_id", "hub"),
    "spec.artifact.merge": ("merge_lora", "merge_and_unload"),
}
"""Fields of ours, and names that mean them elsewhere."""

REMARKS: dict[str, tuple[str, ...]] = {
    "batchSize counts the rows of a whole step, microBatchSize those of one pass": (
        "gradient_accumulation_steps",
        "gradient_accumulation",
    ),
    "the optimizer is AdamW": ("optimizer", "optim", "adam_beta1", "adam_beta2", "adam_epsilon"),
    "loss is computed on completions only": (
        *("train_on_inputs", "train_on_responses_only", "completion_only_loss", "assistant_only_loss", "mask_prompt"),
    ),
    "rows are shuffled, by hyperparameters.seed": ("shuffle", "shuffle_seed", "data_seed"),
    "the trainer validates, logs and keeps checkpoints by itself": (
        *("eval_steps", "eval_strategy", "evaluation_strategy", "logging_steps", "save_total_limit"),
    ),
    "a training goes on to its end: look at status.loss and choose epochs": (
        *("early_stopping", "early_stopping_patience", "load_best_model_at_end", "patience"),
    ),
    "beside the adapters nothing is trained, and with method Full everything": (
        *("modules_to_save", "bias", "lora_modules_to_save", "lora_bias", "unfrozen_parameters", "freeze_layers"),
    ),
    "the trainer knows it by the base model": (
        "task_type",
        "model_type",
        "tokenizer",
        "tokenizer_type",
        "init_lora_weights",
    ),
    "the trainer decides it by itself, see status.memory": (
        *("gradient_checkpointing", "use_gradient_checkpointing", "activation_checkpointing"),
        *("deepspeed", "fsdp", "fsdp_config", "compile", "torch_compile"),
    ),
    "attention is chosen by what the model and the GPU can": ("flash_attention", "flash_attn", "attn_implementation"),
    "the base model's own chat template is taken": ("chat_template", "prompt_template", "special_tokens"),
    f"the base model's own chat template is taken, and pods are shaped by {_TEMPLATE}": ("template",),
    "rows are split before: name another file in spec.dataset.validation or test": (
        *("val_set_size", "val_size", "test_size", "validation_split", "split"),
    ),
    "weights are kept where the connection's huggingFace.artifacts says": ("output_dir", "output", "save_dir"),
    "the connection's trainerImage is the code environment; Python of your own is spec.code": (
        *("image", "command", "args", "runtime_ref", "trainer"),
    ),
    "roles, buckets and disks are in the connection": (
        *("role_arn", "execution_role", "output_data_config", "volume_size", "use_spot_instances"),
    ),
    "the job's name is metadata.name": ("name", "job_name", "run_name"),
    "where a job is trained says its connection, which connectionRef names": ("provider", "backend", "platform"),
    "a job runs once: what repeats it applies one with a new name each time": ("cron", "cron_schedule"),
    f"pods are shaped by {_TEMPLATE}": (
        *("env", "node_selector", "tolerations", "affinity", "service_account_name", "priority_class_name", "labels"),
        *("image_pull_secrets", "runtime_class_name", "volumes", "volume_mounts", "pod_template", "pod_spec_overrides"),
    ),
    f"the queue is named in {_TEMPLATE}": ("queue_name", "queue"),
    "how often a lost pod is started again is the connection's huggingFace.maxRetries": (
        "backoff_limit",
        "max_retries",
    ),
}
"""What to do about names that mean no field of ours, and those names."""


_BY_BLOCK = "the provider is told by its block, such as openAI or huggingFace"
_KEYS = "keys are in a Secret of the operator's namespace, which the provider's block names"
_ONE_NAMESPACE = "write matchLabels: {kubernetes.io/metadata.name: NAME} for one by its name"
OF_CONNECTIONS: dict[str, str] = {
    **dict.fromkeys(("provider", "type", "kind"), _BY_BLOCK),
    **dict.fromkeys(("namespaces", "allowednamespaces"), "here it is spec.namespaceSelector"),
    **dict.fromkeys(("matchname", "matchnames"), _ONE_NAMESPACE),
    **dict.fromkeys(("accesskeyid", "secretaccesskey", "clientsecret", "token", "password"), _KEYS),
}
"""What to do about plain names in an LLMConnection that mean none of its fields."""

COLUMNS: dict[str, tuple[str, ...]] = {
    "prompt": ("input", "question", "query", "text", "instruction", "user", "source"),
    "completion": ("output", "answer", "response", "label", "target", "assistant"),
    "messages": ("conversations", "conversation", "chat", "dialogue"),
    "system": ("system_prompt", "system_message", "context"),
}
"""Keys of dataset.columns, and what others call them."""

VALUES: dict[str, tuple[str, ...]] = {
    "BFloat16": ("bf16",),
    "Float32": ("fp32", "full", "float"),
    "JSONLines": ("jsonl", "ndjson"),
    "CSV": ("tsv",),
    "Parquet": ("pq",),
    "Constant": ("constant_with_warmup",),
    "Cosine": ("cosine_with_restarts", "cosine_with_min_lr"),
    "Retain": ("keep", "orphan", "preserve"),
    "ProvisionedManaged": ("ptu", "provisioned"),
    "LoRA": ("peft",),
    "Full": ("full_finetune", "full_finetuning", "full_fine_tuning", "full_parameter", "fft"),
    "exactMatch": ("accuracy", "em", "exact_match_accuracy"),
    "tokenF1": ("f1", "squad"),
    "rougeL": ("rouge",),
}
"""What fields can have, and what others write for it; a value that only looks different is known without."""


PREFERENCE = frozenset({"dpo", "ipo", "kto", "orpo", "simpo", "rlhf", "preference"})
"""Methods elsewhere that learn from two answers; here that is no method of its own."""

SUPERVISED = frozenset({"sft", "supervised", "finetune", "finetuning", "instructiontuning"})
"""What is called a method elsewhere, and is what each method does here."""


_PLACE_OF = {plain(name): place for place, names in PLACES.items() for name in names}
_COLUMN_OF = {plain(name): column for column, names in COLUMNS.items() for name in names}
_MEANING_OF = {plain(name): value for value, names in VALUES.items() for name in names}
_REMARK_ON = {plain(name): remark for remark, names in REMARKS.items() for name in names}


def place_of(name: str) -> str | None:
    """The field of ours that another tool calls so."""
    return _PLACE_OF.get(plain(name))


def remark_on(name: str) -> str | None:
    """What to do where another tool has such a field, and we have none."""
    return _REMARK_ON.get(plain(name))


def column_of(name: str) -> str | None:
    """The key of dataset.columns that is called so elsewhere."""
    return _COLUMN_OF.get(plain(name))


def meaning_of(value: str) -> str | None:
    """What of ours another tool calls so, as the value of a field."""
    return _MEANING_OF.get(plain(value))
