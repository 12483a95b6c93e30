//! The program on real servers, with a simulated Twilio.

mod bad_input;
mod broker_outage;
mod call_instructions;
mod call_outcomes;
mod canary;
mod chaos;
mod commands;
mod console;
mod failover;
mod isolation;
mod journey;
mod load;
mod prices;
mod publishing;
mod redialling;
mod speech_recognition;
mod speech_settings;
mod tenant_check;
mod voicemail;
