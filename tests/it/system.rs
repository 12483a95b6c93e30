//! The program on real servers, Twilio simulated.

mod bad_input;
mod canary;
mod commands;
mod faults;
mod journey;
mod load;
mod publishing;
