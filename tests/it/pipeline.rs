//! The engine on the ports in memory, under tokio's paused clock: hours in no time.

mod bench;
mod cancelling;
mod changing;
mod failing;
mod living;
mod losing;
mod pacing;
mod publishing;
mod settling;
mod sharing;
mod speaking;
mod stopping;
mod superseding;
mod weather;
