"""Does it help on real tissue? Slides composed of real phenotypes, and every way to embed their regions."""
