"""The demo cohort: whole slides that the project draws itself, two classes that differ by architecture, not color."""
