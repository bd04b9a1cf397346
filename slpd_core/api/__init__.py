"""The steps from a slide to prototypes as functions of arrays, for notebooks and scripts.

They need no settings file and no artifacts. Each does what the stage of the same step does: its results equal the
stage's. Defaults are those of config.yaml: the paper's values. `import slpd_core` exports these functions.
"""
