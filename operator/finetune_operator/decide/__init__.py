"""Pure decisions: (spec, observed, now) to status, conditions and actions. No I/O, no clock, no asyncio."""
