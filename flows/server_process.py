"""The local Prefect server's own process: dies with the one that started it."""

from __future__ import annotations

import sys

from wan22core.worker.processes import die_with_parent, run_last


def main() -> None:
    die_with_parent(int(sys.argv[1]))
    run_last()  # its work must not take time from the stages that are being measured beside it
    import uvicorn

    uvicorn.run(
        "prefect.server.api.server:create_app",
        factory=True,
        host="127.0.0.1",
        port=int(sys.argv[2]),
        log_level="warning",
    )


if __name__ == "__main__":
    main()
