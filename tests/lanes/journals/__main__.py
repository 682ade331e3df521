"""Prints the journals as they are decided now; with ``--write`` they are kept."""

from __future__ import annotations

import sys

from lanes.journals import STORIES, journal_of, write

if __name__ == "__main__":
    if "--write" in sys.argv:
        write()
    else:
        for story in STORIES:
            print(f"# {story.name}\n{journal_of(story)}")
