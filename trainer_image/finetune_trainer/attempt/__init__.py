"""One attempt at a job: its processes, what it tells and records, what may stop it, and how it ends."""
