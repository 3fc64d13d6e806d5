// Colours and patterns of genres, and the colour map of the spectrogram.
