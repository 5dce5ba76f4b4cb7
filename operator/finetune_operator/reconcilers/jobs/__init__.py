"""FineTuneJob: observe, decide, act; what a job at a provider needs besides; what trainers report and ask."""
