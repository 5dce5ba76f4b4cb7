"""Models: the base models of the price list, and the tuned ones."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from openai.types import Model, ModelDeleted

from tests.simulators.clock import Clock
from tests.simulators.http import Call, Reply
from tests.simulators.openai import errors
from tests.simulators.openai.settings import ALIASES, TUNABLE, OpenAISettings, Price
from tests.simulators.shapes import conform

RELEASED = 1721172741


@dataclass
class TunedModel:
    """A model of the organization."""

    name: str
    base: str
    created_at: float
    answers: dict[str, str]


class Models:
    """All models that the organization can call."""

    def __init__(self, clock: Clock, settings: OpenAISettings) -> None:
        self._clock, self._settings = clock, settings
        self.tuned: dict[str, TunedModel] = {}

    def base(self, name: str) -> str | None:
        """The dated name of a base model, if there is one."""
        name = ALIASES.get(name, name)
        return name if name in TUNABLE else None

    def tunable(self, name: str) -> str | None:
        """The base that a job with this model trains: the model itself, or that of a tuned model."""
        return self.tuned[name].base if name in self.tuned else self.base(name)

    def price(self, base: str) -> Price:
        """The list price."""
        return TUNABLE[base]

    @property
    def tell_usage(self) -> bool:
        """Whether answers include `usage`."""
        return self._settings.tell_usage

    def add(self, name: str, base: str, answers: dict[str, str]) -> None:
        """Add a job's model."""
        self.tuned[name] = TunedModel(name, base, self._clock.now, answers)

    def shut_down(self, base: str) -> bool:
        """Whether a base model was shut down."""
        date = self._settings.shutdown_dates.get(base)
        return date is not None and self._clock.now >= datetime.fromisoformat(date).replace(tzinfo=UTC).timestamp()

    def answers(self, name: str) -> tuple[str, dict[str, str]]:
        """The base of a model, and its learned answers; a checkpoint's name works like its model's.

        Raises:
            ApiError: there is no such model, or it was shut down.
        """
        model = self.tuned.get(name.partition(":ckpt-")[0])
        base = model.base if model else self.base(name)
        if base is None:
            raise errors.no_model_to_ask(name)
        if self.shut_down(base):
            raise errors.shut_down(name)
        return base, model.answers if model else {}

    def list(self, _: Call) -> Reply:
        """GET /models. The SDK does not page it."""
        shown = [self._shown(name) for name in [*TUNABLE, *self.tuned]]
        return Reply.json({"object": "list", "data": shown})

    def retrieve(self, call: Call) -> Reply:
        """GET /models/{model}."""
        name = call.path["model"]
        if name not in self.tuned and self.base(name) is None:
            raise errors.no_model(name)
        return Reply.json(self._shown(name))

    def delete(self, call: Call) -> Reply:
        """DELETE /models/{model}."""
        name = call.path["model"]
        if name not in self.tuned:
            raise errors.no_model(name)
        del self.tuned[name]
        return Reply.json(conform(ModelDeleted, {"id": name, "object": "model", "deleted": True}))

    def _shown(self, name: str) -> dict[str, Any]:
        tuned = self.tuned.get(name)
        base = tuned.base if tuned else self.base(name)
        body = {"id": name, "object": "model", "created": int(tuned.created_at) if tuned else RELEASED,
                "owned_by": self._settings.organization if tuned else "system",
                "shutdown_date": self._settings.shutdown_dates.get(str(base))}  # fmt: skip
        return conform(Model, body)
