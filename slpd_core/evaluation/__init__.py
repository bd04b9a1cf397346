"""EMBEDDINGS to NUMBERS: folds, classifiers, heat maps, predictions."""
