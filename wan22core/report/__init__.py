"""A run for people and for programs: JSON, Markdown, one self-contained HTML page, a terminal table, JUnit."""
