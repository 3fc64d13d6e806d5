// Talks to the gateway: the model, uploads, live audio, problems.
