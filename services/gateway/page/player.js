// Playback, and the cursor that everything follows.
