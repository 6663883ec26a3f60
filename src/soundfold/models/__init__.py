"""The network, its training step, its optimizer and its schedule."""
