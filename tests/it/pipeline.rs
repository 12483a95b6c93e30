//! The engine on the ports in memory, under tokio's paused clock: hours pass in milliseconds.

mod authorization;
mod call_instructions;
mod cancelling;
mod clock_steps;
mod delivering;
mod failed_posts;
mod failover;
mod isolation;
mod lost_answers;
mod masses;
mod polling;
mod publishing;
mod random_faults;
mod rate_limits;
mod redialling;
mod settings_changes;
mod settling;
mod slow_provider;
mod superseding;
mod test_bench;
