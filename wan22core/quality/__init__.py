"""Judging: may the records be believed, and are the limits met? The one room that knows Great Expectations."""
