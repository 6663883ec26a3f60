"""Limits of audio files, apart from the code that reads them: the configuration's schema needs no decoder."""

# Hz; a header with another rate is damaged or of another kind of file
MIN_SAMPLE_RATE, MAX_SAMPLE_RATE = 1000, 1_000_000

MAX_N_FFT = 1 << 15  # samples
