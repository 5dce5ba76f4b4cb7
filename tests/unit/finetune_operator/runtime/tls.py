"""The report server's certificates in tests: for localhost, from their own authority."""

from datetime import UTC, datetime

from finetune_operator.runtime.authority import Action, carry_out
from finetune_operator.runtime.certificates import Certificates

MATERIAL = carry_out(Action.MAKE_ALL, None, datetime.now(UTC), ("localhost",))


class _Fixed:
    async def current(self) -> tuple[bytes, bytes, bytes]:
        return MATERIAL.bundle, MATERIAL.serving, MATERIAL.serving_key


async def certificates() -> Certificates:
    """Loaded certificates."""
    found = Certificates(_Fixed())
    await found.load()
    return found
