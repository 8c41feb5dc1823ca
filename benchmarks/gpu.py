"""Recipes beside stock diffusers through the session alone, without Prefect and Great Expectations.

Usage: python benchmarks/gpu.py --help
It lies in ``against_stock``; README.md beside this file has the commands for a session on a GPU.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = str(Path(__file__).resolve().parents[1])

if __name__ == "__main__":
    # the worker children import the stock engines, and the core where it is not installed
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [ROOT, os.environ.get("PYTHONPATH")]))
    sys.path.insert(0, ROOT)
    from benchmarks.against_stock.command import main
    from wan22core.errors import Wan22Error

    try:
        sys.exit(main())
    except Wan22Error as error:
        sys.exit(f"{error.message}\n{error.next_action}")
