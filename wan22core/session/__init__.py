"""The order of the stages of one run, and what is made of their records."""
