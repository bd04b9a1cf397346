"""Find in seconds what would fail in hour nine, and forecast a run; the one room that knows all three chapters."""
