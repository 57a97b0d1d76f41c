"""Safe files and self-contained HTML."""
