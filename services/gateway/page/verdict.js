// The verdict in words, with its uncertainty.
