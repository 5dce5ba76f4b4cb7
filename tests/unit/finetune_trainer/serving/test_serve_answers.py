"""What clients of the OpenAI API get, with its own client against a real server."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
import torch
from running_server import SERVED
from served_models import greedy

LOGPROBS = {"tokens", "token_logprobs", "top_logprobs", "text_offset"}
SKY = [{"role": "system", "content": "Answer with one word."}, {"role": "user", "content": "What colour is the sky?"}]


def chat(client, **fields):
    return client.chat.completions.create(
        **{"model": SERVED, "messages": SKY, "max_tokens": 12, "temperature": 0} | fields
    )


def complete(client, **fields):
    return client.completions.create(
        **{"model": SERVED, "prompt": "one two", "max_tokens": 12, "temperature": 0} | fields
    )


def expected(reference, text, count, *, of=None):
    """Text and tokens that transformers gives for a prompt."""
    model, tokenizer = reference
    prompt = of if of is not None else tokenizer.encode(text, add_special_tokens=False)
    tokens = greedy(model, prompt, count)
    return tokenizer.decode(tokens, skip_special_tokens=True), tokens, prompt


def templated(reference, messages):
    _, tokenizer = reference
    return tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"]


def test_a_chat_answer_is_what_transformers_generates(client, reference):
    text, tokens, prompt = expected(reference, None, 12, of=templated(reference, SKY))
    answer = chat(client)
    choice = answer.choices[0]
    assert (choice.message.role, choice.message.content, choice.finish_reason) == ("assistant", text, "length")
    assert answer.usage.model_dump(include={"prompt_tokens", "completion_tokens", "total_tokens"}) == {
        "prompt_tokens": len(prompt), "completion_tokens": len(tokens), "total_tokens": len(prompt) + len(tokens),
    }  # fmt: skip
    assert (answer.object, answer.model, choice.index) == ("chat.completion", SERVED, 0)
    assert answer.id.startswith("chatcmpl-")
    assert answer.created > 1_700_000_000


def test_a_completion_is_what_transformers_generates(client, reference):
    text, tokens, prompt = expected(reference, "good bad", 20)
    answer = complete(client, prompt="good bad", max_tokens=20)
    assert (answer.choices[0].text, answer.choices[0].finish_reason) == (text, "length")
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (len(prompt), len(tokens))


def test_a_completion_has_16_tokens_unless_more_are_asked_for(client):
    assert client.completions.create(model=SERVED, prompt="one", temperature=0).usage.completion_tokens == 16


def test_prompts_may_be_several_texts_or_token_lists(client, reference):
    _, tokenizer = reference
    texts = ["one two", "good bad", "Hello"]
    singly = [complete(client, prompt=text).choices[0].text for text in texts]
    together = complete(client, prompt=texts)
    assert [choice.text for choice in together.choices] == singly
    assert [choice.index for choice in together.choices] == [0, 1, 2]
    assert together.usage.completion_tokens == 36
    ids = [tokenizer.encode(text) for text in texts]
    assert [choice.text for choice in complete(client, prompt=ids).choices] == singly
    assert complete(client, prompt=ids[1]).choices[0].text == singly[1]


def test_text_parts_and_the_developer_role_are_taken(client):
    parts = [
        {"role": "developer", "content": [{"type": "text", "text": "Answer with one word."}]},
        {"role": "user", "content": [{"type": "text", "text": "What colour"}, {"type": "text", "text": "is the sky?"}]},
    ]
    plain = [SKY[0], {"role": "user", "content": "What colour\nis the sky?"}]
    assert (
        chat(client, messages=parts).choices[0].message.content
        == chat(client, messages=plain).choices[0].message.content
    )


def test_a_streamed_chat_brings_the_same_text_in_pieces(client):
    whole = chat(client)
    with chat(client, stream=True, stream_options={"include_usage": True}) as stream:
        chunks = list(stream)
    *texts, last = chunks
    assert texts[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in texts) == whole.choices[0].message.content
    assert len(texts) > 5
    assert [chunk.choices[0].finish_reason for chunk in texts if chunk.choices[0].finish_reason] == ["length"]
    assert (last.choices, last.usage) == ([], whole.usage)
    assert len({chunk.id for chunk in chunks}) == 1
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}


def test_a_streamed_completion_keeps_its_prompts_apart(client):
    prompts = ["one two", "good bad"]
    texts = ["", ""]
    for chunk in complete(client, prompt=prompts, stream=True):
        assert chunk.usage is None
        texts[chunk.choices[0].index] += chunk.choices[0].text
    assert texts == [complete(client, prompt=prompt).choices[0].text for prompt in prompts]


def test_a_stream_ends_with_done(address):
    body = {"model": SERVED, "prompt": "one", "max_tokens": 2, "stream": True}
    with httpx.stream("POST", f"{address}/v1/completions", json=body) as answer:
        lines = [line for line in answer.iter_lines() if line]
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert lines[-1] == "data: [DONE]"
    assert all(json.loads(line.removeprefix("data: "))["object"] == "text_completion" for line in lines[:-1])


@pytest.mark.parametrize("as_list", [False, True])
@pytest.mark.parametrize("stream", [False, True])
def test_a_stop_sequence_over_two_tokens_ends_the_answer_and_is_not_shown(client, reference, stream, as_list):
    text, tokens, _ = expected(reference, "What colour is the sky?", 30)
    _, tokenizer = reference
    pieces = [tokenizer.decode([token]) for token in tokens]
    at = next(i for i in range(2, 29) if all(p.isascii() and len(p) > 1 for p in pieces[i : i + 2]))
    stop = pieces[at][-1] + pieces[at + 1][0]
    asked = {"prompt": "What colour is the sky?", "max_tokens": 30, "stop": [stop, "never said"] if as_list else stop}
    if stream:
        chunks = list(complete(client, **asked, stream=True))
        shown, finish = "".join(chunk.choices[0].text for chunk in chunks), chunks[-1].choices[0].finish_reason
    else:
        choice = complete(client, **asked).choices[0]
        shown, finish = choice.text, choice.finish_reason
    assert (shown, finish) == (text[: text.index(stop)], "stop")


def test_the_end_token_ends_the_answer_and_is_not_shown(client, reference):
    _, tokenizer = reference
    end = tokenizer.eos_token_id
    answer = complete(client, logit_bias={str(end): 100})
    assert (answer.choices[0].text, answer.choices[0].finish_reason) == ("", "stop")
    assert answer.usage.completion_tokens == 1


@pytest.mark.parametrize("stream", [False, True])
def test_several_answers_are_each_drawn_anew_and_the_prompt_counts_once(client, stream):
    asked = {"temperature": 1, "seed": 5, "max_tokens": 8, "n": 3}
    if stream:
        texts = [""] * 3
        for piece in chat(client, **asked, stream=True, stream_options={"include_usage": True}):
            usage = piece.usage
            for choice in piece.choices:
                texts[choice.index] += choice.delta.content or ""
    else:
        answer = chat(client, **asked)
        texts, usage = [choice.message.content for choice in answer.choices], answer.usage
        assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert texts == [chat(client, **asked | {"n": 1, "seed": 5 + turn}).choices[0].message.content for turn in range(3)]
    assert len(set(texts)) == 3
    assert usage.prompt_tokens == chat(client).usage.prompt_tokens
    assert usage.completion_tokens <= 24


def test_several_answers_stand_behind_one_another_for_each_prompt(client):
    prompts = ["one two", "good bad"]
    answer = complete(client, prompt=prompts, n=2)
    singly = [complete(client, prompt=prompt).choices[0].text for prompt in prompts]
    assert [choice.text for choice in answer.choices] == [singly[0], singly[0], singly[1], singly[1]]


def logprobs_of(reference, prompt, tokens):
    """[tokens, vocabulary]: what transformers says of each place of an answer."""
    model, _ = reference
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[*prompt, *tokens]])).logits[0, len(prompt) - 1 : -1]
    return logits.float().log_softmax(-1)


@pytest.mark.parametrize("stream", [False, True])
def test_log_probabilities_of_a_chat_are_the_models_own(client, reference, stream):
    _, tokens, prompt = expected(reference, None, 12, of=templated(reference, SKY))
    asked = {"logprobs": True, "top_logprobs": 3, "frequency_penalty": 0.01}
    if stream:
        pieces = [piece.choices[0] for piece in chat(client, **asked, stream=True)]
        told = [one for piece in pieces if piece.logprobs for one in piece.logprobs.content]
    else:
        told = chat(client, **asked).choices[0].logprobs.content
    own = logprobs_of(reference, prompt, tokens)
    chosen = own[range(12), tokens].tolist()
    assert [one.logprob for one in told] == pytest.approx(chosen, abs=1e-3)
    most = own.topk(3)
    _, tokenizer = reference
    for one, values, places in zip(told, most.values.tolist(), most.indices.tolist(), strict=True):
        assert [other.logprob for other in one.top_logprobs] == pytest.approx(values, abs=1e-3)
        assert [other.token for other in one.top_logprobs] == [tokenizer.decode([place]) for place in places]
        assert one.bytes is None or bytes(one.bytes).decode() == one.token
    assert chat(client, logprobs=True).choices[0].logprobs.content[0].top_logprobs == []


@pytest.mark.parametrize("stream", [False, True])
def test_log_probabilities_of_completions_have_the_older_form(client, reference, stream):
    _, tokens, prompt = expected(reference, "one two", 12)
    if stream:
        told = [piece.choices[0].logprobs for piece in complete(client, logprobs=1, stream=True)]
        told = {name: [value for one in told if one for value in getattr(one, name)] for name in LOGPROBS}
    else:
        told = complete(client, logprobs=1).choices[0].logprobs.model_dump(include=LOGPROBS)
    own = logprobs_of(reference, prompt, tokens)
    _, tokenizer = reference
    texts = [tokenizer.decode([token]) for token in tokens]
    assert told["tokens"] == texts
    assert told["token_logprobs"] == pytest.approx(own.max(-1).values.tolist(), abs=1e-3)
    assert told["top_logprobs"] == [{text: value} for text, value in zip(texts, told["token_logprobs"], strict=True)]
    assert told["text_offset"] == [len("".join(texts[:place])) for place in range(12)]


def test_the_token_that_ends_an_answer_is_not_told(client, reference):
    _, tokenizer = reference
    answer = chat(client, logit_bias={str(tokenizer.eos_token_id): 100}, logprobs=True)
    assert answer.choices[0].logprobs.content == []
    assert chat(client).choices[0].logprobs is None


def test_a_seed_makes_sampling_repeatable(client):
    def answer(seed):
        return complete(client, temperature=1, max_tokens=20, seed=seed).choices[0].text

    assert answer(1) == answer(1)
    assert answer(1) != answer(2)
    assert complete(client, temperature=1, max_tokens=20).choices[0].text != answer(1)


def test_an_answer_ends_where_the_context_does(client, served):
    prompt = [40] * (served.context - 5)
    answer = complete(client, prompt=prompt, max_tokens=100)
    assert (answer.usage.completion_tokens, answer.choices[0].finish_reason) == (5, "length")


def test_max_completion_tokens_is_the_later_word_for_max_tokens(client):
    answer = client.chat.completions.create(model=SERVED, messages=SKY, temperature=0, max_completion_tokens=3)
    assert answer.usage.completion_tokens == 3


def test_fields_that_change_nothing_are_ignored(client):
    extra = {"user": "u", "store": False, "metadata": {"a": "b"}, "n": 1, "logprobs": False, "tools": [], "future": 1}
    assert chat(client, extra_body=extra).choices[0].message == chat(client).choices[0].message


def test_parallel_requests_get_what_they_get_alone(client):
    texts = [
        "one two",
        "good bad happy",
        "Hello",
        "What colour is grass? Grass is",
        "yes",
        "no good",
        "sad",
        "three four five",
    ]
    asks = [
        {"prompt": text, "max_tokens": 10 + 5 * i, "temperature": 0 if i % 2 else 0.9, "seed": i}
        for i, text in enumerate(texts)
    ]
    alone = [complete(client, **ask).choices[0].text for ask in asks]
    together = threading.Barrier(len(asks))

    def one(ask):
        together.wait()
        return complete(client, **ask).choices[0].text

    with ThreadPoolExecutor(len(asks)) as pool:
        assert list(pool.map(one, asks)) == alone


def test_the_model_is_listed_by_its_name(client, served):
    assert [model.id for model in client.models.list()] == [SERVED]
    card = client.models.retrieve(SERVED)
    assert (card.id, card.object, card.model_extra["max_model_len"]) == (SERVED, "model", served.context)
