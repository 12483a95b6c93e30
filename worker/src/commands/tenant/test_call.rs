//! `voice-otp tenant test-call`.

use anyhow::{Context as _, anyhow};
use voice_otp_publisher::connection::user_name;
use voice_otp_publisher::test_call::request;
use voice_otp_schemas::{Locale, PhoneNumber};
use voice_otp_store::{Error, test_calls};

use crate::args::TestCall;
use crate::commands::CommandError;
use crate::commands::database::{load_tenant, open};
use crate::commands::input::tenant_id;
use crate::commands::publish::publish_one;
use crate::config::ArgumentChecker;
use crate::output::print_line;

pub(super) async fn run(args: &TestCall) -> Result<(), CommandError> {
    let mut checker = ArgumentChecker::default();
    let id = tenant_id(&mut checker, &args.id);
    let to = checker.parse("--to", &args.to, PhoneNumber::parse);
    let locale = args
        .locale
        .as_deref()
        .and_then(|tag| checker.parse("--locale", tag, Locale::parse));
    let keys = checker.keys(&args.keys);
    let database = checker.database(&args.database);
    let broker = checker.broker(&args.broker, &args.database.cleartext);
    let (id, to, keys, database, broker) =
        checker.finish(|| Some((id?, to?, keys?, database?, broker?)))?;

    let pool = open(&database).await?;
    let settings = load_tenant(&pool, &keys, &id).await?;
    let user = user_name(&broker);
    if !settings.may_publish(user.as_deref()) {
        let user = user.unwrap_or_default();
        return Err(CommandError::Failed(anyhow!(
            "the RabbitMQ user '{user}' may not publish for {id}; voice-otp tenant set --publisher \
             changes who may"
        )));
    }
    test_calls::take(&pool, &id)
        .await
        .map_err(|error| match error {
            limit @ Error::TooManyTestCalls(_) => anyhow!(limit),
            other => anyhow!(other).context("count the test calls"),
        })?;
    let request = request(id, to, locale)
        .map_err(|error| anyhow!(error))
        .context("make a request")?;
    print_line(&format!(
        "The call reads the code {}: answer, and listen whether it is clear.",
        request.code.expose()
    ))?;
    if settings.test_mode {
        print_line("The tenant is in test mode: no call is placed.")?;
    }
    publish_one(&broker, &request, true).await
}
