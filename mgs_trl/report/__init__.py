"""`python -m mgs_trl.report OUTPUT_DIR [OUTPUT_DIR ...]`: one self-contained HTML file about multi-domain runs."""

from mgs_trl.report.page import write_report

__all__ = ["write_report"]
