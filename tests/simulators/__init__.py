"""Real HTTP servers that behave as the cloud providers document, for tests with the providers' own SDKs."""
