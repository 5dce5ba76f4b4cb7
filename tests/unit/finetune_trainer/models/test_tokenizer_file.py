"""The tokens that are learnt, measured and served are those of tokenizer.json, whatever class reads it."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from finetune_api.exit_codes import ExitCode
from finetune_trainer.data import ChatTokenizer, Turn
from finetune_trainer.errors import TrainerError
from finetune_trainer.models import base_model
from finetune_trainer.models.tokenizer_file import _TEXTS
from finetune_trainer.serving.artifact import open_artifact
from finetune_trainer.serving.load import LoadOptions, load
from tests.assets.tiny_model import NAME as TINY
from tests.unit.finetune_trainer.data.chat_templates import LLAMA, sentence_piece
from tests.unit.finetune_trainer.jobs import make_job
from tests.unit.finetune_trainer.training_runs import do

NAME = "test/llama-2"
TURNS = (Turn("system", "Be brief."), Turn("user", "What colour  is the sky?"))
TEXT = "x<s> What</s>\ncolour  </s>[is] it?"


def named(folder: Path, kind: str) -> Path:
    """The folder, whose tokenizer_config.json names another class."""
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"tokenizer_class": kind}))
    return folder


@pytest.fixture
def cache(tmp_path):
    """With a model whose tokenizer transformers 5 builds in another way than its file says, as it does Llama 2's."""
    folder, tokenizer = tmp_path / "cache" / NAME, sentence_piece(LLAMA)
    torch.manual_seed(0)
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
    LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **small)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    named(folder, "LlamaTokenizer")
    return tmp_path / "cache"


def test_transformers_still_reads_such_a_file_in_a_way_of_its_own(cache):
    """When this fails, transformers was mended, and `tokenizer_file.py` can go."""
    own = AutoTokenizer.from_pretrained(cache / NAME)
    assert own(TEXT, add_special_tokens=False).input_ids != ChatTokenizer.from_folder(cache / NAME).ids([TEXT])[0]


@pytest.mark.parametrize(
    "spec", [{}, {"artifact": {"merge": True}}, {"method": "Full"}], ids=["LoRA", "merged", "Full"]
)
def test_a_tuned_model_is_asked_with_the_tokens_that_it_was_trained_with(cache, tmp_path, spec):
    job = make_job(tmp_path, cache, splits=("train",), baseModel=NAME, hyperparameters={"epochs": 0.2}, **spec)
    code, report, _ = do(job)
    assert code == ExitCode.OK, report.failure
    trained, folder = ChatTokenizer.from_folder(cache / NAME), Path(job.output) / "model"
    served = load(open_artifact(folder, cache), LoadOptions(name="x"))
    try:
        assert list(served.prompts.chat(TURNS)) == trained.prompt_ids(TURNS)
    finally:
        served.engine.close(timeout=10)
    anybody = AutoTokenizer.from_pretrained(folder)
    assert anybody(TEXT, add_special_tokens=False).input_ids == trained.ids([TEXT])[0]
    messages = [{"role": turn.role, "content": turn.content} for turn in TURNS]
    asked = anybody.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert asked == trained.prompt_ids(TURNS)


@pytest.mark.parametrize("kind", ["T5Tokenizer", "PegasusTokenizer", "XLMRobertaTokenizer"])
def test_a_class_that_can_read_no_such_file_does_not_keep_its_model_from_being_tuned(tiny_model, tmp_path, kind):
    folder = shutil.copytree(tiny_model / TINY, tmp_path / "cache" / TINY)
    named(folder, kind)
    with pytest.raises(Exception, match="dict"):
        AutoTokenizer.from_pretrained(folder)
    texts = [TEXT, *_TEXTS]
    found = base_model.load_tokenizer(folder)
    assert [found(one, add_special_tokens=False).input_ids for one in texts] == ChatTokenizer.from_folder(folder).ids(
        texts
    )
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(TrainerError, match="its tokenizer cannot be loaded"):
        base_model.load_tokenizer(folder)


def test_code_of_a_tokenizers_own_is_not_passed_over(tiny_model, tmp_path):
    folder = shutil.copytree(tiny_model / TINY, tmp_path / "cache" / TINY)
    path = named(folder, "Own") / "tokenizer_config.json"
    code = {"auto_map": {"AutoTokenizer": [None, "own.Own"]}}
    path.write_text(json.dumps(json.loads(path.read_text()) | code))
    with pytest.raises(TrainerError, match="its tokenizer cannot be loaded"):
        base_model.load_tokenizer(folder)


def test_a_class_that_wrote_its_file_itself_stays(cache, tmp_path):
    AutoTokenizer.from_pretrained(cache / NAME).save_pretrained(tmp_path / "own")
    assert type(base_model.load_tokenizer(named(tmp_path / "own", "LlamaTokenizer"))).__name__ == "LlamaTokenizer"
