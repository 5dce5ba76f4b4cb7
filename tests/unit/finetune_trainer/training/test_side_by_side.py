"""Passes that a CPU computes side by side: in any number of threads a job learns the same, to the bit."""

import os
import signal
import threading

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, Phi3Config, Phi3ForCausalLM

from finetune_api.exit_codes import ExitCode
from finetune_trainer.models import memory, memory_fit
from finetune_trainer.training import objective, passes, side_by_side
from finetune_trainer.training.objective import by_loss
from finetune_trainer.training.passes import loss_sum
from finetune_trainer.training.side_by_side import why_in_order
from finetune_trainer.training.step_trainer import StepTrainer
from tests.unit.finetune_trainer.jobs import make_job
from tests.unit.finetune_trainer.training_runs import do, same_result

PASSES = [{"input_ids": torch.tensor([number])} for number in range(6)]
SHORT = 64
"""Tokens of a pass: about one row of these tests' data, of which a step has eight."""


def number(one):
    return int(one["input_ids"])


def test_several_passes_are_under_way_at_once_and_results_keep_their_order():
    met = threading.Barrier(2, timeout=60)

    def of_pass(one):
        met.wait()  # nobody gets past it alone
        return number(one)

    assert list(side_by_side.each(PASSES, of_pass, at_once=2)) == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(("at_once", "threads"), [(1, 4), (2, 2), (3, 1), (4, 1), (9, 1)])
def test_threads_are_dealt_out_among_passes_and_given_back(at_once, threads):
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        seen = set(side_by_side.each(PASSES, lambda _: torch.get_num_threads(), at_once=at_once))
        assert (seen, torch.get_num_threads()) == ({threads}, 4)
    finally:
        torch.set_num_threads(before)


def test_what_goes_wrong_in_a_pass_goes_wrong_for_the_caller():
    def of_pass(one):
        return 1 // (3 - number(one))

    found = side_by_side.each(PASSES, of_pass, at_once=2)
    assert [next(found), next(found), next(found)] == [0, 0, 1]
    with pytest.raises(ZeroDivisionError):
        next(found)


@pytest.fixture(scope="module")
def gpt2():
    sizes = {"vocab_size": 32, "n_embd": 16, "n_layer": 1, "n_head": 2, "bos_token_id": 0, "eos_token_id": 0}
    return lambda dropped: GPT2LMHeadModel(GPT2Config(**sizes, resid_pdrop=dropped, embd_pdrop=0, attn_pdrop=0))


def phi3(rope):
    sizes = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "pad_token_id": 0}
    positions = {"max_position_embeddings": 64, "original_max_position_embeddings": 32}
    return Phi3ForCausalLM(Phi3Config(**sizes, **positions, num_attention_heads=2, rope_parameters=rope))


def llama(rope):
    sizes = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    return LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=2, rope_parameters=rope))


def why(model):
    state = torch.get_rng_state()
    found = why_in_order(model.train(), lambda: model(input_ids=torch.tensor([[1, 2, 3]])))
    assert torch.equal(state, torch.get_rng_state())
    return found


def test_models_that_draw_random_numbers_compute_in_order(gpt2):
    assert why(gpt2(0.1)) == "it draws random numbers"
    assert why(gpt2(0.0)) is None


def test_models_whose_rotation_changes_with_a_pass_compute_in_order():
    for_long = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [2.0] * 4}
    changing = phi3(for_long | {"rope_theta": 1e4}), llama({"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4})
    for model in changing:
        assert why(model) == "its positions are rotated otherwise in passes of other lengths"
    for model in (phi3, llama):
        assert why(model({"rope_type": "default", "rope_theta": 1e4})) is None


on_a_cpu = pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU computes passes in order")


def on_cores(monkeypatch, cores):
    monkeypatch.setattr(memory, "PARALLEL_CPU_TOKENS", SHORT)
    monkeypatch.setattr(memory_fit, "cpu_threads", lambda: cores)


@on_a_cpu
def test_a_job_learns_the_same_to_the_bit_on_any_number_of_cores(tiny_model, tmp_path, monkeypatch, caplog):
    jobs = {}
    for cores in (1, 5):
        jobs[cores] = make_job(tmp_path / str(cores), tiny_model, hyperparameters={"epochs": 1})
        with monkeypatch.context() as patch, caplog.at_level("INFO"):
            on_cores(patch, cores)
            assert do(jobs[cores])[0] == ExitCode.OK
    assert "passes are computed 5 at a time" in caplog.messages
    same_result(jobs[1], jobs[5])


@on_a_cpu
def test_a_jobs_steps_have_an_even_number_of_passes_of_like_sizes(tiny_model, tmp_path, monkeypatch):
    original, cut = passes.even_rows, []

    def recorded_rows(lengths, tokens):
        made = original(lengths, tokens)
        if len(lengths) > 1:
            cut.append([sum(lengths[place] for place in one) for one in made])
        return made

    monkeypatch.setattr(passes, "even_rows", recorded_rows)
    assert do(make_job(tmp_path, tiny_model, splits=("train",), hyperparameters={"epochs": 1}))[0] == ExitCode.OK
    assert cut
    assert all(len(sizes) % 2 == 0 and max(sizes) < 1.5 * min(sizes) for sizes in cut), cut


@on_a_cpu
def test_a_step_given_up_among_passes_side_by_side_is_done_as_if_for_the_first_time(tiny_model, tmp_path, monkeypatch):
    straight, broken = (
        make_job(tmp_path / name, tiny_model, splits=("train",), hyperparameters={"epochs": 0.8, "checkpointSteps": 99})
        for name in ("straight", "broken")
    )
    done, asked = [], threading.Event()

    def counted(model, batch):
        if done and not asked.is_set():  # in the second step, in whichever pass is the first
            asked.set()
            os.kill(os.getpid(), signal.SIGTERM)
        return loss_sum(model, batch)

    with monkeypatch.context() as patch:
        on_cores(patch, 2)
        assert do(straight)[0] == ExitCode.OK
        patch.setattr(objective, "LIKELIHOOD", by_loss(counted))
        patch.setattr(StepTrainer, "record_step", recorded(done))
        code, report, _ = do(broken)
    assert (code, report.progress.step, report.progress.saved_step) == (ExitCode.INTERRUPTED, 1, 1)
    with monkeypatch.context() as patch:
        on_cores(patch, 2)
        assert do(broken)[0] == ExitCode.OK
    same_result(straight, broken)


def recorded(done):
    original = StepTrainer.record_step

    def record_step(self, learning_rate):
        original(self, learning_rate)
        done.append(self.state.global_step)

    return record_step
