//! The program on real servers, Twilio simulated.

mod bad_input;
mod canary;
mod chaos;
mod checking;
mod commands;
mod console;
mod faults;
mod following;
mod heard;
mod hearing;
mod journey;
mod load;
mod outage;
mod publishing;
mod strangers;
