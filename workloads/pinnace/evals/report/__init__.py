"""Results: a summary for machines, a page for people, tables, and logs for Inspect View."""

from .summary import ItemResult, Score, Summary, summarise_run

__all__ = ["ItemResult", "Score", "Summary", "summarise_run"]
