"""One file per stage of a benchmark: each task is one call of the session, published and returned."""
