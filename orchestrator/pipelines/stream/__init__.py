"""The stream pipeline: from an upload at Cloudflare Stream to a verified MP4 in R2."""
