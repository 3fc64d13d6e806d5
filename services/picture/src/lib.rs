//! Pictures of a track.
