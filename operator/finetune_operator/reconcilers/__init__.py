"""One file per kind: observe, decide, apply, write status once if it changed."""
