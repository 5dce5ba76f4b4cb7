"""Pure builders, one file per child object: kind in, manifest out. No client, no clock."""
