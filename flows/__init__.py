"""One file per story; Prefect schedules, retries and shows what the session does."""
