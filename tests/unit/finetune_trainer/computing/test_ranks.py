"""Several processes learn as one would: the same gradients, the same order, and nothing lost when one of them ends."""

import os
import shutil
import signal
import socket
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import distributed
from transformers import LlamaConfig, LlamaForCausalLM

from finetune_api.exit_codes import ExitCode
from finetune_api.names import NODE_VARIABLE
from finetune_api.reasons import Reason
from finetune_api.trainer import TrainerJob
from finetune_trainer.attempt import launch
from finetune_trainer.attempt.metrics import Metrics
from finetune_trainer.computing.ranks import World, join
from finetune_trainer.data import IGNORED
from finetune_trainer.errors import TrainerError
from finetune_trainer.training import tokenised
from finetune_trainer.training.batches import Plan
from finetune_trainer.training.passes import Cut, labelled, loss_sum
from finetune_trainer.training.step_trainer import StepTrainer
from finetune_trainer.training.steps import PASSES, Steps
from finetune_trainer.training.token_store import TokenStore
from tests.cluster.ports import free_port
from tests.unit.finetune_trainer.computing import ranks
from tests.unit.finetune_trainer.jobs import make_job

ROWS = [
    ([5, 6, 7, 8, 9, 10], [IGNORED, IGNORED, IGNORED, 8, 9, 10]),
    ([11, 12, 13], [IGNORED, 12, 13]),
    ([4, 4, 4, 4, 4, 4, 4, 4, 3], [IGNORED] * 8 + [3]),
    ([7, 2], [IGNORED, 2]),
    ([1, 2, 3, 4], [IGNORED, IGNORED, 3, 4]),
]


def gradients(world: World, batch_size: int) -> dict[str, torch.Tensor]:
    """Of the first step, as the trainer comes to them; an unused parameter has none."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2
    )
    model = LlamaForCausalLM(config)
    model.unused = torch.nn.Parameter(torch.ones(3))
    steps = Steps(TokenStore(ROWS), Plan(len(ROWS), batch_size=batch_size, epochs=1, seed=0), Cut(12), world)
    passes = steps[0][PASSES].each
    (total,) = world.sums(sum(map(labelled, passes)))
    for one in passes:
        (loss_sum(model, one) / total).backward()
    world.sum_gradients(model.parameters())
    assert model.unused.grad is None
    return {name: value.grad for name, value in model.named_parameters() if value.grad is not None}


def leave_gradients(folder: Path) -> None:
    world = join()
    world.connect()
    for batch_size in (len(ROWS), 1):
        save_file(gradients(world, batch_size), folder / f"{batch_size}-{world.rank}.safetensors")
    world.disconnect()


@pytest.mark.parametrize("size", [2, 3])
def test_trap_06_gradients_of_several_ranks_are_those_of_one_with_rows_of_unequal_length(tmp_path, size):
    assert ranks.ended(ranks.start(size, leave_gradients, tmp_path)) == [0] * size
    for batch_size in (len(ROWS), 1):  # with one row all ranks but one have nothing to do
        expected = gradients(World(), batch_size)
        for rank in range(size):
            got = load_file(tmp_path / f"{batch_size}-{rank}.safetensors")
            assert got.keys() == expected.keys()
            for name, value in expected.items():
                torch.testing.assert_close(got[name], value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("rows", "size"), [([3, 1, 4, 5, 9, 2], 2), ([3, 1, 4, 5, 9, 2], 4), ([7], 3), ([], 2), (list(range(17)), 5)]
)
def test_each_row_of_a_step_goes_to_one_rank_and_all_have_about_as_many(rows, size):
    lengths = [row + 10 for row in rows]
    shares = [World(rank, size).share(rows, lengths) for rank in range(size)]
    assert sorted(row for share in shares for row in share) == sorted(rows)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert World().share(rows, lengths) == rows


def test_shares_have_about_as_many_tokens():
    lengths = [100, 90, 50, 40, 30, 20, 10, 9]
    shares = [World(rank, 2).share(range(8), lengths) for rank in (0, 1)]
    assert [sum(lengths[row] for row in share) for share in shares] == [179, 170]


def test_trap_10_ranks_that_are_killed_or_stopped_go_on_in_the_same_order_and_end_the_same(tiny_model, tmp_path):
    paces = {"hyperparameters": {"epochs": 3, "checkpointSteps": 7}}
    straight, broken = (ranks.job_of(tmp_path / name, tiny_model, **paces) for name in ("straight", "broken"))
    broken = broken.model_copy(update={"spec": straight.spec})
    undisturbed = ranks.started(straight, 2)

    killed = ranks.started(broken, 2)
    ranks.wait_for_step(broken, 13, killed)
    os.kill(killed[1].pid, signal.SIGKILL)
    assert ranks.ended(killed) == [ExitCode.INTERRUPTED, -signal.SIGKILL]
    assert ranks.message(broken, 0) == Reason.INTERRUPTED
    assert not (Path(broken.output) / "model").exists()

    stopped = ranks.started(broken, 2)
    ranks.wait_for_step(broken, ranks.steps_done(broken) + 3, stopped)
    os.kill(stopped[1].pid, signal.SIGTERM)
    assert ranks.ended(stopped) == [ExitCode.INTERRUPTED, ExitCode.INTERRUPTED]
    done = ranks.steps_done(broken)
    assert max((Path(broken.output) / "checkpoints").iterdir()).name == f"step-{done:08d}"

    alone = broken.model_copy(update={"output": str(tmp_path / "alone" / "output")})
    shutil.copytree(broken.output, alone.output)
    assert ranks.ended(undisturbed) == [0, 0]
    assert ranks.ended(ranks.started(broken, 2)) == [0, 0]
    assert ranks.ended(ranks.started(alone, 1)) == [0]
    weights = [load_file(Path(job.output) / "model" / "adapter_model.safetensors") for job in (straight, broken)]
    assert all(weights[0][name].equal(weights[1][name]) for name in weights[0])
    assert ranks.learnt(straight) == ranks.learnt(broken)
    order = [[line.get("tokens") for line in ranks.learnt(job)] for job in (straight, alone)]
    assert order[0] == order[1]


def test_a_rank_that_finds_no_store_was_interrupted_and_has_not_crashed(monkeypatch):
    """The first node has ended while this one's ranks began: the next attempt is the answer."""
    environment = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("finetune_trainer.computing.ranks._CONNECT_TIMEOUT", timedelta(milliseconds=10))
    with pytest.raises(TrainerError) as refused:
        join()
    assert refused.value.reason is Reason.INTERRUPTED


def hear_late() -> None:
    """What rank 0 tells last is heard by the other when rank 0 has long had nothing left to do."""
    world = join(2)
    with world.connected():
        if not world.is_first:
            time.sleep(0.5)
        assert world.broadcast("last", lambda: "word") == "word"


def test_rank_0_does_not_leave_before_all_have_heard_what_it_told():
    assert ranks.ended(ranks.start(2, hear_late)) == [0, 0]


def hear_twice() -> None:
    """Rank 0 is long in the second work of one name: the others must not take the first one's answer for it."""
    world = join(2)
    with world.connected():
        assert world.broadcast("count", lambda: 1) == 1

        def slowly() -> int:
            time.sleep(0.5)
            return 2

        assert world.broadcast("count", slowly) == 2


def test_what_is_told_a_second_time_by_the_same_name_is_the_second_answer():
    assert ranks.ended(ranks.start(2, hear_twice)) == [0, 0]


def read_late(folder: Path) -> None:
    """The last sum reaches both ranks, and the other is long in reading it: the way it came by has to stand."""
    world, read = join(2), folder / "read"
    sums = World.sums

    def slowly(self: World, *numbers: float) -> tuple[float, ...]:
        summed = sums(self, *numbers)
        if not self.is_first:
            time.sleep(0.5)
            read.touch()
        return summed

    World.sums = slowly
    with world.connected():
        pass
    assert read.exists()


def test_rank_0_does_not_leave_before_all_have_read_the_last_sum(tmp_path):
    assert ranks.ended(ranks.start(2, read_late, tmp_path)) == [0, 0]


def do_and_note(job: TrainerJob, messages: str) -> None:
    """Do the job, and write down when data are tokenised or mapped, when the process group forms, what is validated."""
    rank = os.environ["RANK"]

    def noting(word: str, work: Any, notes: str = "order") -> Any:
        def noted(*args: Any, **kwargs: Any) -> Any:
            (Path(messages) / f"{notes}-{rank}").open("a").write(f"{word}\n")
            return work(*args, **kwargs)

        return noted

    tokenised.encode = noting("tokenised", tokenised.encode)
    tokenised.MappedTokens = noting("mapped", tokenised.MappedTokens)
    distributed.init_process_group = noting("group", distributed.init_process_group)
    Metrics.has_validation = noting("asked", Metrics.has_validation, "validations")
    ranks.do(job, messages)


@pytest.fixture(scope="module")
def one_job_three_ways(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> list[TrainerJob]:
    """A job done by one rank, by two that each hold the model, and by two that share it."""
    folder = tmp_path_factory.mktemp("ranks")
    paces = {"lora": None, "hyperparameters": {"epochs": 1, "microBatchSize": 2}}
    jobs = [ranks.job_of(folder / name, tiny_model, **paces) for name in ("one", "two", "sharing")]
    jobs = [job.model_copy(update={"spec": jobs[0].spec}) for job in jobs]
    jobs[1] = jobs[1].model_copy(update={"ranks_per_node": 2})
    works = zip(jobs, (1, 2, 2), (ranks.do, do_and_note, ranks.do_sharing), strict=True)
    runs = [ranks.started(job, size, work) for job, size, work in works]
    assert [ranks.ended(run) for run in runs] == [[0], [0, 0], [0, 0]]
    return jobs


def test_two_ranks_come_to_the_weights_of_one_whether_each_holds_the_model_or_both_share_it(one_job_three_ways):
    jobs = one_job_three_ways
    one, *others = ([line for line in ranks.learnt(job) if "loss" in line] for job in jobs)
    for lines in others:
        assert [line["tokens"] for line in lines] == [line["tokens"] for line in one]
        assert [line["loss"] for line in lines] == pytest.approx([line["loss"] for line in one], rel=1e-3)
        assert [line["gradNorm"] for line in lines] == pytest.approx([line["gradNorm"] for line in one], rel=1e-2)
    first, *rest = ([line["validationLoss"] for line in ranks.learnt(job) if "loss" not in line] for job in jobs)
    assert first
    assert rest == [pytest.approx(first, rel=1e-3)] * 2
    assert not (messages_of(jobs[1]) / "metrics.jsonl").exists()
    adapters = [load_file(Path(job.output) / "model" / "adapter_model.safetensors") for job in jobs]
    shapes = [{name: (value.shape, value.dtype) for name, value in adapter.items()} for adapter in adapters]
    assert shapes[0] == shapes[1] == shapes[2]


def test_trap_18_rows_are_tokenised_once_and_before_the_process_group_forms(one_job_three_ways):
    orders = [(messages_of(one_job_three_ways[1]) / f"order-{rank}").read_text().split() for rank in (0, 1)]
    assert orders == [["tokenised", "tokenised", "group"], ["mapped", "mapped", "group"]]


def test_no_step_is_validated_again_where_an_epoch_ends(one_job_three_ways):
    job = one_job_three_ways[1]
    done = [line for line in ranks.learnt(job) if "validationLoss" in line]
    assert len((messages_of(job) / "validations-0").read_text().split()) == len(done) > 0


def messages_of(job: TrainerJob) -> Path:
    return Path(job.output).parent / "messages"


def test_a_checkpoint_that_is_not_on_every_node_is_said_to_be_so(tmp_path):
    with pytest.raises(
        TrainerError, match="step-7 is the checkpoint to resume from, and is not there on every"
    ) as refusal:
        StepTrainer._resume_notes(None, str(tmp_path / "step-7"), 7, {})
    assert refusal.value.reason == Reason.ARTIFACT_FAILED
    assert "ReadWriteMany" in refusal.value.next_step


def test_bad_rows_are_told_by_the_first_rank_alone(tiny_model, tmp_path):
    job = ranks.job_of(tmp_path, tiny_model)
    with (tmp_path / "train.jsonl").open("a") as file:
        file.write('{"prompt": "no answer"}\n')
    assert ranks.ended(ranks.started(job, 2)) == [ExitCode.DATASET_INVALID, ExitCode.INTERRUPTED]
    assert (ranks.message(job, 0), ranks.message(job, 1)) == (Reason.DATASET_INVALID, Reason.INTERRUPTED)


def wait_for_others(job: TrainerJob, ready: str) -> None:
    os.environ[NODE_VARIABLE] = "1"
    Path(ready).touch()
    raise SystemExit(launch.main(job))


def test_a_pod_that_waits_for_the_others_ends_at_once_when_it_is_told_to(tmp_path):
    job = make_job(tmp_path, tmp_path / "cache")
    with socket.socket() as nobody:  # it listens, and never answers
        nobody.bind(("127.0.0.1", 0))
        nobody.listen()
        alone = job.model_copy(update={"nodes": 2, "rendezvous": f"127.0.0.1:{nobody.getsockname()[1]}"})
        process = ranks.context().Process(target=wait_for_others, args=(alone, str(tmp_path / "ready")))
        process.start()
        nobody.settimeout(120)
        connection, _ = nobody.accept()
        started = time.monotonic()
        os.kill(process.pid, signal.SIGTERM)
        process.join(60)
        connection.close()
    assert process.exitcode == ExitCode.INTERRUPTED
    assert time.monotonic() - started < 30
