"""How good tuned models get on data that people have rated, beside what was published about the same data."""
