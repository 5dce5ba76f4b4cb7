"""By what rows of different lengths attend on a GPU: tried on one that is not there: shapes alone count."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, varlen

from finetune_trainer.computing.attention import attention


@pytest.mark.parametrize("compiled", [False, True], ids=["as it is", "compiled"])
def test_rows_of_different_lengths_attend_by_flash_attention(monkeypatch, compiled):
    """cuDNN looks for a kernel at each pass of other lengths, which is every pass."""
    allowed = []

    def select(*_given):
        allowed.append({"cuDNN": torch._C._get_cudnn_sdp_enabled(), "flash": torch._C._get_flash_sdp_enabled()})
        return SDPBackend.FLASH_ATTENTION.value

    monkeypatch.setattr(varlen, "_select_backend", select)
    with FakeTensorMode(allow_non_fake_inputs=True):
        given = [torch.empty(1, 2, 10, 16, device="cuda", dtype=torch.bfloat16) for _ in range(3)]
        told = {"cu_seq_lens_q": torch.empty(3, device="cuda", dtype=torch.int32), "max_length_q": 7}

        def attend(query, key, value):
            return attention(torch.nn.Module(), query, key, value, None, **told)[0]

        way = torch.compile(attend, backend="eager", dynamic=True, fullgraph=True) if compiled else attend
        assert way(*given).shape == (1, 10, 2, 16)
    torch._dynamo.reset()
    assert allowed == [{"cuDNN": False, "flash": True}]
    assert torch.backends.cuda.cudnn_sdp_enabled(), "elsewhere it may be used"
