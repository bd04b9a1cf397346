"""Measurements beside an alternative and a floor in the same run: python -m benchmarks [NAME ...]."""

from slpd_core.runtime import limit_spinning

limit_spinning()  # as in a job, before anything loads OpenMP
