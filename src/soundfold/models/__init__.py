"""The network, its training step and its schedule."""
