"""`report.html`: the spine in 3D, slices, tables and provenance of one result in one file."""

from vertebral.stages.report.html import write_report
from vertebral.stages.report.volumes import page_volumes

__all__ = ["page_volumes", "write_report"]
