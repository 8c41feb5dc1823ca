"""Sampling while something runs, and traces of it."""
