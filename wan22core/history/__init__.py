"""What was measured before: every run, repeat and stage with its labels, its series and its environment."""
