"""A house for each story."""

from __future__ import annotations

from house.fixtures import house, house_directory, sample, stream_options

__all__ = ["house", "house_directory", "sample", "stream_options"]
