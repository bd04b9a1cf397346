"""Everything the rules compute, as plain Python: targets, resources, tracked and untracked files, stage versions."""
