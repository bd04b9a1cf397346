"""Prototypes of slides: their clustering, the matching of slides by them, and the most similar slides."""
