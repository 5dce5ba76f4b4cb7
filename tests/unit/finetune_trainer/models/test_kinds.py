"""Kinds of models that cannot be used here are told apart by their configuration, in words."""

import inspect
from contextlib import suppress
from types import SimpleNamespace

import pytest
from huggingface_hub.errors import StrictDataclassClassValidationError
from transformers import AutoConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
)

from finetune_trainer.data import ChatTokenizer
from finetune_trainer.evaluation.models import Model
from finetune_trainer.models.kinds import CAUSAL, why_not, why_not_by


@pytest.mark.parametrize(
    ("kind", "fields", "said"),
    [
        ("rwkv", {}, "keeps its state of a text in a way of its own"),
        ("reformer", {"is_decoder": True}, "learns only rows whose length is a multiple of that of its chunks"),
        ("marian", {}, "has a tokenizer for each of its two languages"),
        ("mbart", {}, "is told the languages of both texts by tokens"),
        ("led", {}, "is an encoder-decoder; of these only bart, blenderbot,"),
        ("bert", {"architectures": ["BertForMaskedLM"]}, "BertForMaskedLM is not a language model that answers"),
        ("bert", {"architectures": []}, None),
        ("vit", {}, "transformers has no language model of the kind vit"),
        ("clip", {"architectures": None}, "transformers has no language model of the kind clip"),
        ("llava", {"architectures": ["LlamaForCausalLM"]}, "transformers has no language model of the kind llava"),
        ("llama", {"architectures": ["LlamaForCausalLM"]}, None),
        ("llama", {}, None),
        ("t5", {"architectures": ["T5ForConditionalGeneration"]}, None),
    ],
)
def test_a_kind_is_refused_with_the_reason(kind, fields, said):
    found = why_not(AutoConfig.for_model(kind, **fields), own_code=False)
    assert (found is None) is (said is None)
    assert said is None or said in found[0]


@pytest.mark.parametrize("positions", [-1, 0, None])
def test_a_model_that_names_no_number_of_positions_has_room_for_any_answer(positions):
    """XLNet says -1."""
    config = SimpleNamespace(max_position_embeddings=positions)
    config.get_text_config = lambda: config
    room = Model(SimpleNamespace(config=config), None, ChatTokenizer).room(100, 50)
    assert (room.answer, room.prompt) == (50, (1 << 20) - 50)


def test_no_kind_is_taken_that_transformers_has_no_language_model_for():
    """A library's own words for it name a hundred classes, and no next step. Its configuration may name no class."""
    classes = {False: MODEL_FOR_CAUSAL_LM_MAPPING, True: MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING}
    taken = [config for config in _all_configurations() if why_not(config, own_code=False) is None]
    assert len(taken) > 100
    assert [one.model_type for one in taken if type(one) not in classes[one.is_encoder_decoder]] == []


def _all_configurations():
    for kind in CONFIG_MAPPING_NAMES:
        with suppress(ValueError, StrictDataclassClassValidationError):  # they are made of others
            yield AutoConfig.for_model(kind)


def test_kinds_that_are_known_without_transformers_are_its_own():
    assert sorted(CAUSAL) == sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    assert why_not_by({"model_type": "foollama"})[0] == "transformers has no language model of the kind foollama"
    taken = [config for config in _all_configurations() if why_not(config, own_code=False) is None]
    assert [config.model_type for config in taken if why_not_by({"model_type": config.model_type})] == []


def test_no_kind_is_trained_that_no_server_could_give_its_state():
    """XLM and XLNet are refused by a pass on trial: they look at what follows."""
    taken = []
    for config, classes in MODEL_FOR_CAUSAL_LM_MAPPING.items():
        named = classes[0] if isinstance(classes, tuple) else classes
        if not {"past_key_values", "cache_params"} & inspect.signature(named.forward).parameters.keys():
            said = {"model_type": config.model_type, "architectures": [named.__name__]}
            taken += [] if why_not_by(said) else [config.model_type]
    assert sorted(taken) == ["xlm", "xlnet"]
