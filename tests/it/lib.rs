//! Holds the integration binary `it`; there is nothing to link against.
