//! The console on real servers: authorization, versions, methods, test calls, sessions and streams;
//! no secret leaves it. `./dev console` walks through its pages in a browser.

mod access;
mod client;
mod events;
mod methods;
mod provider;
mod session;
mod strangers;
