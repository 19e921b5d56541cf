"""The report that one explores: one HTML file that stands by itself and asks nothing of any network."""

from whatwhere.report.explorer.document import check_path, document, report, write_report

__all__ = ["check_path", "document", "report", "write_report"]
