"""The report that one explores: one HTML file that stands by itself and asks nothing of any network."""

from whatwhere.report.explorer.document import document, report, write_report

__all__ = ["document", "report", "write_report"]
