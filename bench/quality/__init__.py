"""Quality of tuned models on data rated by people, compared with published figures for the same data."""
