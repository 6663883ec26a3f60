"""Exploratory analysis of a collection: checks, duplicates, descriptors, figures, its page."""
