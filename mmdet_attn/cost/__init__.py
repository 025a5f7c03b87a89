"""The cost of attention: parameters, FLOPs, time and memory."""
