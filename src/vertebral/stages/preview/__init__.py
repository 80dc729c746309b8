"""The preview: one picture of a scan, its labels and its surfaces, to judge a result at a glance."""

from vertebral.stages.preview.picture import preview

__all__ = ["preview"]
