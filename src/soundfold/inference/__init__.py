"""Use trained models: predict recordings, write timelines, export, serve a demo page."""
