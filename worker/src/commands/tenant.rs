//! `voice-otp tenant`.

mod check;
mod list;
mod pause;
mod set;
mod show;
mod speech_args;
mod test_call;

use super::CommandError;
use crate::args::Tenant;

pub(super) async fn run(command: Tenant) -> Result<(), CommandError> {
    match command {
        Tenant::Set(args) => set::run(*args).await,
        Tenant::Show {
            id,
            json,
            database,
            keys,
        } => show::run(&id, json, &database, &keys).await,
        Tenant::List { json, database } => list::run(json, &database).await,
        Tenant::Check {
            id,
            json,
            twilio,
            database,
            keys,
        } => check::run(&id, json, &twilio, &database, &keys).await,
        Tenant::TestCall(args) => test_call::run(&args).await,
        Tenant::Pause { id, database } => pause::set_paused(&id, true, &database).await,
        Tenant::Resume { id, database } => pause::set_paused(&id, false, &database).await,
        Tenant::Delete { id, database } => pause::delete(&id, &database).await,
    }
}
