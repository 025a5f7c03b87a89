"""Show the gates of a detector over images: PNGs and one HTML page."""
