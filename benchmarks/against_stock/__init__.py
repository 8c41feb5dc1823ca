"""Our recipes beside stock diffusers, one measurement after the other; ``benchmarks/gpu.py`` is how it is run."""
