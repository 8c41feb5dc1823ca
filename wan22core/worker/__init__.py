"""The child process that owns torch: it can be killed at any moment, and costs one stage when it is."""
