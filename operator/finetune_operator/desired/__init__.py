"""Pure builders, one module per child object: spec in, manifest out. No client, no clock."""
