"""What is watched: the store, its indexes, what it keeps of objects, and what a change affects."""
