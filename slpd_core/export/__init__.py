"""ARTIFACTS to the files of other tools; nothing is encoded again."""
