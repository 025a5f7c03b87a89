"""What attention does: its gates over images, as PNGs and one HTML page."""
