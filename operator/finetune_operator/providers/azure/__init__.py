"""Azure OpenAI: its data plane is OpenAI's, its deployments are created through ARM."""
