"""How a provider is called: limits, timeouts, a circuit breaker, and the errors and values of its answers."""
