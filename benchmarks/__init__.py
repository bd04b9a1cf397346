"""What is measured, how, against which alternative and which floor: python -m benchmarks [NAME ...]."""
