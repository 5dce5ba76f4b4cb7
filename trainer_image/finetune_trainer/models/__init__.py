"""Base models: found, fetched, loaded, known again, adapted, and what tuning them takes of memory."""
