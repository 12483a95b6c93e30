//! x
mod database;
mod harness;
mod system;
mod tidy;
