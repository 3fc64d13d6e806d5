//! The genres, in the order of every list of probabilities.

/// The ten genres of the default model.
pub const GENRES: [&str; 10] =
    ["blues", "classical", "country", "disco", "hiphop", "jazz", "metal", "pop", "reggae", "rock"];

/// The verdict over nothing but silence, or over what is like none of the labels. Not a label of any model.
pub const UNKNOWN: &str = "unknown";
