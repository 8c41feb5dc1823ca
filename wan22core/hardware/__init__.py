"""A truthful picture of this machine: every field with its source, or with the reason why it is unknown."""
