"""The stages of a slide before its tokens: seconds and memory of tissue and regions by the size of the slide."""
