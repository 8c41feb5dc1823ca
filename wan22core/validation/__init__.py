"""Checks of the whole system on this machine: the registry, the runner, what the results add up to."""
