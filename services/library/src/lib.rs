//! A music library sorted by genre.
