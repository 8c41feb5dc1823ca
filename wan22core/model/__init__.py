"""The system under test: the Wan2.2 TI2V-5B architecture, its checkpoints, and how it is run."""
