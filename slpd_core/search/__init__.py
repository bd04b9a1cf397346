"""Embeddings to similar slides: an index of the cohort's prototypes, and the slides nearest to each query."""
