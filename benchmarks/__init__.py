"""Measurements of this project: each script says at its top how it is run."""
