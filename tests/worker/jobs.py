"""Functions for worker children, and a parent to be killed."""

from __future__ import annotations

import logging
import sys
import threading
from pathlib import Path
from typing import Any


def log_something(text: str, report: object) -> dict[str, Any]:
    logging.getLogger(__name__).warning("%s", text)
    return {"logged": text}


def main() -> None:
    """Starts a worker that hangs in C, prints its pid, and waits to be killed."""
    from tests.worker.test_worker import faulty_spec
    from wan22core.worker.client import ModelWorker

    worker = ModelWorker(Path(sys.argv[1]))
    worker.spawn()
    worker.start({"spec": faulty_spec("hang:load").model_dump(mode="json")})
    threading.Thread(target=worker.stage, args=("load", 600), daemon=True).start()
    print(worker.pid, flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
