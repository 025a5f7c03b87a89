"""The commands, one file each; `tools/` holds thin fronts to them."""
