"""EMBEDDINGS to NUMBERS: folds, classifiers, metrics, report."""
