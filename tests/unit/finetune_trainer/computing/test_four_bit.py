"""bitsandbytes is imported by those who quantise, and by nobody else: a fresh interpreter tells."""

import json
import subprocess
import sys

import pytest

ADAPTERS = """
import sys
from pathlib import Path
from finetune_trainer.computing import four_bit
four_bit.block_import(Path(sys.argv[1]))
import torch
from peft import LoraConfig, get_peft_model
get_peft_model(torch.nn.Sequential(torch.nn.Linear(4, 4)), LoraConfig(target_modules=["0"]))
print(sys.modules["bitsandbytes"] is None, "torch._inductor.compile_fx" in sys.modules)
"""
LEFT_OUT = """
import sys
from pathlib import Path
from finetune_trainer.computing import four_bit
four_bit.block_import(Path(sys.argv[1]))
print("bitsandbytes" in sys.modules)
"""


def said(code, folder):
    command = [sys.executable, "-c", code, str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


def base(folder, **config):
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", **config}))
    return folder


def test_adapters_are_made_without_it_and_without_torchs_compiler(tmp_path):
    assert said(ADAPTERS, base(tmp_path)) == ["True", "False"]


@pytest.mark.parametrize(
    ("config", "left_out"), [({}, "True"), ({"quantization_config": {"load_in_4bit": True}}, "False")]
)
def test_a_base_that_was_saved_quantised_has_it(tmp_path, config, left_out):
    assert said(LEFT_OUT, base(tmp_path, **config)) == [left_out]
