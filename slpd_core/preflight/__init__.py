"""Find in seconds the failures of hour nine, and forecast a run; knows all three chapters."""
