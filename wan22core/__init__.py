"""Everything about measuring Wan2.2 TI2V-5B that can be known without an orchestrator.

The package imports nothing heavy: rooms import torch, pandas and the like where they use them.
"""

__version__ = "0.1.0"
