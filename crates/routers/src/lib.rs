//! One file for each thing that can send clients to a side.
