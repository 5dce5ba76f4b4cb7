"""Objects that earlier releases have stored: the definitions keep them whole, and the models read them as they are."""

from collections.abc import Iterator
from itertools import chain
from typing import Any

import pytest

from finetune_api.base import ApiModel
from finetune_api.crds import KINDS
from finetune_api.manifest import Manifest
from finetune_operator.desired.compare import differences
from tests.contract.conftest import Server
from tests.releases import RELEASES, WHOLE, WORLDS, objects

pytestmark = pytest.mark.cluster

KIND = {kind.kind: kind for kind in KINDS}


def stored(release: str) -> Iterator[Manifest]:
    """Its objects of our kinds, with names of their own."""
    found = chain.from_iterable(((name, obj) for obj in objects(release, name)) for name in (*WORLDS, WHOLE))
    for number, (name, obj) in enumerate(found):
        if obj["kind"] in KIND:
            place = {} if obj["kind"] == "LLMConnection" else {"namespace": "default"}
            metadata = {"name": f"r-{release}-{name}-{number}".replace(".", "-"), **place}
            yield {**obj, "metadata": metadata}


@pytest.mark.parametrize("release", RELEASES)
def test_what_an_earlier_release_has_stored_is_kept_and_read(server: Server, release: str) -> None:
    for old in stored(release):
        kept = server.put_whole(old)
        assert list(differences({part: kept[part] for part in ("spec", "status")}, _parts(old))) == []
        kind = KIND[old["kind"]]
        for model, part in ((kind.spec, "spec"), (kind.status, "status")):
            assert list(differences(_read(model, kept[part]), old[part])) == [], (old["kind"], part)


def _parts(obj: Manifest) -> Manifest:
    return {part: obj[part] for part in ("spec", "status")}


def _read(model: type[ApiModel], part: Any) -> Manifest:
    return model.model_validate(part).wire()
