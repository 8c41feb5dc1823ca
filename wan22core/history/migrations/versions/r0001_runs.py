"""Runs, repeats, stages, series, environments."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_METRICS = (
    "load_s", "generation_s", "start_to_video_s", "step_median_s", "generation_fps", "memory_efficiency",
    "peak_allocated_mib", "peak_reserved_mib", "peak_process_mib", "peak_device_mib", "peak_rss_mib",
)  # fmt: skip


def upgrade() -> None:
    op.create_table(
        "series",
        sa.Column("series_key", sa.String(32), primary_key=True),
        sa.Column("parts", sa.JSON, nullable=False),
    )
    op.create_table(
        "environments",
        sa.Column("environment_key", sa.String(32), primary_key=True),
        sa.Column("parts", sa.JSON, nullable=False),
    )
    op.create_table(
        "runs",
        sa.Column("run_id", sa.String(64), primary_key=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, index=True),
        sa.Column("verdict", sa.String(32), nullable=False),
        sa.Column("summary", sa.Text, nullable=False),
        sa.Column("series_key", sa.String(32), sa.ForeignKey("series.series_key"), nullable=False, index=True),
        sa.Column("environment_key", sa.String(32), sa.ForeignKey("environments.environment_key"), nullable=False),
        sa.Column("device", sa.String(32), nullable=False),
        sa.Column("device_name", sa.String(128)),
        sa.Column("architecture", sa.String(64), nullable=False),
        sa.Column("workload", sa.String(128), nullable=False),
        sa.Column("recipe", sa.String(64), nullable=False),
        sa.Column("comparable", sa.Boolean, nullable=False),
        sa.Column("run_dir", sa.Text, nullable=False),
        sa.Column("document", sa.JSON, nullable=False),
    )
    _create_rows()


def _create_rows() -> None:
    op.create_table(
        "repeats",
        sa.Column("run_id", sa.String(64), sa.ForeignKey("runs.run_id", ondelete="CASCADE"), primary_key=True),
        sa.Column("kind", sa.String(16), primary_key=True),
        sa.Column("repeat", sa.Integer, primary_key=True),
        *(sa.Column(name, sa.Float) for name in _METRICS),
    )
    op.create_table(
        "stages",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column(
            "run_id", sa.String(64), sa.ForeignKey("runs.run_id", ondelete="CASCADE"), nullable=False, index=True
        ),
        sa.Column("stage", sa.String(32), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("repeat", sa.Integer, nullable=False),
        sa.Column("component", sa.String(64)),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("wall_s", sa.Float),
        *(sa.Column(name, sa.Float) for name in _METRICS if name.startswith("peak_")),
        sa.Column("bytes_read", sa.BigInteger),
        sa.Column("error_code", sa.String(64)),
    )


def downgrade() -> None:
    for name in ("stages", "repeats", "runs", "environments", "series"):
        op.drop_table(name)
