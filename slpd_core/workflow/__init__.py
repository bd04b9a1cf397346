"""Everything the rules compute, as plain Python: encoders, rows, resources, tracked files, stage versions."""
