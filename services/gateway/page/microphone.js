// Audio from the microphone, while it is being made.
