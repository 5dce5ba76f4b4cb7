"""LLMConnection: observe, decide, write status."""

from finetune_api.connection import LLMConnectionSpec, LLMConnectionStatus
from finetune_operator.decide import connection as decide_connection
from finetune_operator.reconcilers.context import Context, parse_spec, parse_status
from finetune_operator.runtime.kube import CONNECTIONS
from finetune_operator.runtime.queue import Key


class ConnectionReconciler:
    """Tells whether a connection can be used."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def reconcile(self, key: Key) -> None:
        """One look at a connection."""
        connection = await self._context.read(CONNECTIONS, key)
        if connection is None:
            return
        spec, spec_error = parse_spec(LLMConnectionSpec, connection)
        status = parse_status(LLMConnectionStatus, connection)
        new = decide_connection.decide(
            spec,
            spec_error,
            status,
            generation=connection["metadata"]["generation"],
            now=self._context.clock(),
        )
        await self._context.write_status(CONNECTIONS, connection, status, new)
