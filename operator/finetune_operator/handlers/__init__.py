"""kopf only: events to the queue and the store, login. Nothing is decided here."""
