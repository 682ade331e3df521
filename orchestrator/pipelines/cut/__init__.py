"""The cut pipeline: an uploaded video becomes clips, by ffmpeg, in a directory that is served."""
