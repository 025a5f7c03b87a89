"""Weights that others released, in the layout of MMDetection 3.x."""
