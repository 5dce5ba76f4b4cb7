"""Samples the next token of one request, from its logits and settings.

Plain greedy decoding is done for a whole batch at once in `batch`; everything else row by row here, so that a request's
random numbers depend only on its own seed.
"""

from collections import Counter

import torch

from finetune_trainer.serving.asks import Likelihood, Sampling

_COLDEST = 1e-5
"""Lower temperatures count as 0: only the most likely token remains, and the division would overflow float32."""

_LEAST = -9999.0
"""OpenAI's log probability for an impossible token: JSON has no infinity."""


class Sampler:
    """Chooses one token after another; keeps the random state, and the counts for penalties."""

    def __init__(self, settings: Sampling) -> None:
        self._settings = settings
        self._random = torch.Generator()
        self._counts: Counter[int] = Counter()
        if settings.seed is None:
            self._random.seed()
        else:
            self._random.manual_seed(settings.seed)

    @property
    def is_plain_greedy(self) -> bool:
        """Whether the token is just the one with the highest logit."""
        return self._is_greedy and not (self._settings.logit_bias or self._has_penalties)

    @property
    def _is_greedy(self) -> bool:
        return self._settings.temperature < _COLDEST

    @property
    def _has_penalties(self) -> bool:
        return bool(self._settings.presence_penalty or self._settings.frequency_penalty)

    def choose(self, logits: torch.Tensor) -> int:
        """The next token, from float32 logits of shape [vocabulary] on the CPU."""
        adjusted = self._adjust(logits)
        settings = self._settings
        if self._is_greedy:
            token = int(adjusted.argmax())
        else:
            chances = (adjusted / settings.temperature).softmax(-1)
            kept = _keep_most_likely(chances, settings.top_k, settings.top_p)
            token = int(torch.multinomial(kept, 1, generator=self._random))
        if self._has_penalties:
            self._counts[token] += 1
        return token

    def _adjust(self, logits: torch.Tensor) -> torch.Tensor:
        settings = self._settings
        if not (settings.logit_bias or self._counts):
            return logits
        logits = logits.clone()
        for token, count in self._counts.items():
            logits[token] -= settings.presence_penalty + count * settings.frequency_penalty
        for token, bias in settings.logit_bias:
            logits[token] += bias
        return logits


def likelihood(logits: torch.Tensor, token: int, count: int) -> Likelihood:
    """A token's log probability from float32 logits of shape [vocabulary], with the `count` most likely tokens."""
    logarithms = logits.log_softmax(-1).clamp_min(_LEAST)
    most, tokens = logarithms.topk(min(count, len(logarithms)))
    return Likelihood(token, float(logarithms[token]), tuple(zip(tokens.tolist(), most.tolist(), strict=True)))


def _keep_most_likely(chances: torch.Tensor, top_k: int, top_p: float) -> torch.Tensor:
    """`chances` with zeros outside the `top_k` most likely (0: all) and the smallest set with a sum of `top_p`."""
    if top_k == 0 and top_p >= 1:
        return chances
    ordered, order = chances.sort(descending=True, stable=True)
    before = ordered.cumsum(-1) - ordered
    drop = before >= top_p * ordered.sum()
    drop[0] = False
    if top_k:
        drop[top_k:] = True
    return torch.zeros_like(chances).scatter(0, order, ordered.masked_fill(drop, 0))
