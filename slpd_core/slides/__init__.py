"""PIXELS to TOKENS: sheet, tissue, regions, patches, tokens, ledger."""
