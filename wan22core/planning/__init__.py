"""Decide before running: plans, predictions and settings, as pure functions."""
