"""The account behind each LLMConnection: its client, its identity, and the polling of its jobs."""
