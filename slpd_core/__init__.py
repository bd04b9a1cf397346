"""SLPD: from whole-slide images to slide-level results. See README.md for the map."""

__version__ = "0.1.0"
