"""NUMBERS to pages: the result table with its intervals, the report, tables over several cohorts."""
