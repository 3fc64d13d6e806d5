// The picture of a track: waveform, spectrogram, votes, and a cursor over all of them.
