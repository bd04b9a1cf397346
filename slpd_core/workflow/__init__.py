"""Everything the rules compute, as plain Python: encoders, tasks, rows, resources, tracked files, stage versions."""
