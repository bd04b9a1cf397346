"""Measurements beside an alternative and a floor in the same run: python -m benchmarks [NAME ...]."""
