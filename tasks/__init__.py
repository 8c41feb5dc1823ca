"""Prefect tasks: one call of the session each, typed records out."""
