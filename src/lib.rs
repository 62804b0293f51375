//! Dealstream.
