"""Training in pods of this cluster."""
