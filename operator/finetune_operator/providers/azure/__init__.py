"""Azure OpenAI: its data plane is OpenAI's, its deployments are made by ARM."""
