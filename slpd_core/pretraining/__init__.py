"""TOKENS to EMBEDDINGS: Slide-Level Prototypical Distillation of the region encoder."""
