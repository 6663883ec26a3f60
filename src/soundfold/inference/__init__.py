"""A trained model in use: recordings in, probabilities out; timelines, export, a page to try it."""
