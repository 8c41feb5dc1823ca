"""The ``wan22`` command: one file per group, imported when it is called."""
