"""PIXELS to TOKENS: sheet, tissue, regions, patch encoder, tokens, ledger."""
