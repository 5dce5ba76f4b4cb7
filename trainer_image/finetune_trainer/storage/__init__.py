"""Where files are kept: folders that are written whole or not at all, object stores, archives that are carried in."""
