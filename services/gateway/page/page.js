// Wires the page together: what comes in, what is shown.
