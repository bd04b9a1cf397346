"""Pictures: overlays, heat maps, galleries, and text on them; the pages that show them."""
