"""How fast datasets are checked, compared with common libraries."""
