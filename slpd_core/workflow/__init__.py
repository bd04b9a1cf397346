"""What the rules compute, as plain Python: targets, resources, what Snakemake tracks and what it does not."""
