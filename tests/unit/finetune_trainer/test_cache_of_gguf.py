"""GGUF files on their way into the model cache; the conversion itself is played by the quickstart on a cluster."""

import gguf

from finetune_trainer import cache


def test_a_file_is_read_once_for_all_that_is_made_of_it(monkeypatch):
    read = []
    monkeypatch.setattr(gguf, "GGUFReader", lambda path: read.append(path) or object())
    table = gguf.get_tensor_name_map
    with cache._read_once():
        assert len({gguf.GGUFReader("model.gguf") for _ in ("tokenizer", "configuration", "weights")}) == 1
        assert gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 2) is gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 2)
    gguf.GGUFReader("model.gguf")  # another conversion: the file may be another by now
    assert read == ["model.gguf"] * 2
    assert gguf.get_tensor_name_map is table
