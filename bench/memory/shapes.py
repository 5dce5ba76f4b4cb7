"""Models of known shapes with random weights: memory does not depend on their values."""

from pathlib import Path
from typing import Any

from finetune_api.trainer import TrainerJob

SHAPES: dict[str, dict[str, Any]] = {
    "tiny": {"hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": 2, "num_attention_heads": 4}
    | {"num_key_value_heads": 2, "vocab_size": 512, "tie_word_embeddings": True},
    "SmolLM2-135M": {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9}
    | {"num_key_value_heads": 3, "vocab_size": 49152, "tie_word_embeddings": True},
    "Qwen2.5-0.5B": {"hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14}
    | {"num_key_value_heads": 2, "vocab_size": 151936, "tie_word_embeddings": True},
    "Qwen2.5-1.5B": {"hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28, "num_attention_heads": 12}
    | {"num_key_value_heads": 2, "vocab_size": 151936, "tie_word_embeddings": True},
    "Llama-3.1-8B": {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32}
    | {"num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256, "tie_word_embeddings": False},
}


def config_of(name: str) -> Any:
    """Transformers' configuration of a shape."""
    from transformers import LlamaConfig

    return LlamaConfig(**SHAPES[name], max_position_embeddings=8192)


def job_of(folder: Path, method: str, **hyper: Any) -> TrainerJob:
    """A job whose rows are supplied by the caller."""
    data = folder / "train.jsonl"
    spec = {
        "connectionRef": {"name": "local"},
        "baseModel": "bench/model",
        "modelRef": {"name": "bench"},
        "dataset": {"train": {"uri": data.as_uri()}},
        "method": method,
        "hyperparameters": {"epochs": 1, **hyper},
    }
    return TrainerJob.model_validate(
        {
            "namespace": "bench",
            "name": "memory",
            "uid": "bench",
            "attempt": 1,
            "output": str(folder / "output"),
            "artifactURI": "file:///bench",
            "modelCache": str(folder / "cache"),
            "airGapped": True,
            "spec": spec,
        }
    )
