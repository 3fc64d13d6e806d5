// What is known of a track so far.
