//! An empty library: the package holds the integration tests `it`.
