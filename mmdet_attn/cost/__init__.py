"""What attention costs: parameters, FLOPs, time and memory."""
