// Runs on the audio thread: turns what the microphone hears into 16-bit samples.
