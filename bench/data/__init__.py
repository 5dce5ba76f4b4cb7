"""How fast datasets are checked, beside the field's own libraries."""
