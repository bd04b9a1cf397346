"""Pictures: overlays, heat maps, galleries, and text on them."""
