"""What a base model is not blamed for."""

import pytest
import torch

from finetune_trainer.errors import TrainerError
from finetune_trainer.models import base_model, base_refusals
from tests.assets.tiny_model import NAME
from tests.unit.finetune_trainer.shortages import OF_THE_MACHINE


@pytest.mark.parametrize(
    "given",
    [
        torch.OutOfMemoryError("x"),
        torch.AcceleratorError("x"),
        *OF_THE_MACHINE.values(),
        TrainerError("SpecInvalid", "x"),
    ],
    ids=repr,
)
def test_memory_and_devices_that_fail_are_no_fault_of_the_model(tmp_path, tiny_model, monkeypatch, given):
    def fail(*_args, **_about):
        raise given

    with pytest.raises(type(given)) as raised, base_refusals.in_words(tmp_path, "a pass on trial"):
        fail()
    assert raised.value is given
    if not isinstance(given, TrainerError):
        monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", fail)
        with pytest.raises(type(given)) as raised:
            base_model.load_model(tiny_model / NAME, dtype=torch.float32)
        assert raised.value is given
