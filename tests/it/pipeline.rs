//! The engine on the ports in memory, under tokio's paused clock: hours in no time.

mod answering;
mod bench;
mod cancelling;
mod changing;
mod failing;
mod following;
mod living;
mod losing;
mod pacing;
mod publishing;
mod redialling;
mod settling;
mod sharing;
mod speaking;
mod stopping;
mod superseding;
mod weather;
