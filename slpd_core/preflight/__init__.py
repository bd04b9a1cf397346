"""What would fail in hour nine, in seconds: looks at machine, slides and weights, and foretells hours and gigabytes.

The one room that knows all three chapters; none of them knows it.
"""
