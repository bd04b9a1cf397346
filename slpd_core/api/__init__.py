"""The functions of the front door that compose rooms, or take what a notebook has: arrays, open slides and paths.

Their results equal those of the stages; their defaults are those of config.yaml, the paper's values. The rest of the
front door is the rooms' own functions: see `slpd_core`.
"""
