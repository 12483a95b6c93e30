//! The demo's requests: one or more of every outcome.

use std::time::Duration;

use voice_otp_schemas::envelope::Trace;
use voice_otp_schemas::reason::ReasonCode;
use voice_otp_schemas::request::Requested;
use voice_otp_schemas::status::Status;
use voice_otp_schemas::{Context, DeliveryId, Locale, OtpCode, PhoneNumber, TenantId, Timestamp};

use voice_otp_publisher::clock;

/// A request, and how it must end.
pub(super) struct Case {
    pub(super) description: &'static str,
    pub(super) request: Requested,
    pub(super) action: Action,
    pub(super) expected: (Status, Option<ReasonCode>),
}

/// What the demo does with a request besides publishing it at the start.
#[derive(Debug)]
pub(super) enum Action {
    None,
    /// Publish it a second time.
    PublishDuplicate,
    /// Publish this other request, which has the same id.
    PublishConflict(Box<Requested>),
    /// Cancel it at this status.
    CancelAt(Status),
    /// Publish it only when each other request of its tenant has a status, with this time to live.
    /// Two workers share the queue, so the order of publishing is not the order of admission.
    PublishAfterOthers(Duration),
}

/// The dead letters of a demo: the unreadable message, and the conflicting duplicate.
pub(super) const DEAD_LETTERS: u32 = 2;

pub(super) const ACME: &str = "demo-acme";
/// Its account places one call a second.
pub(super) const GLOBEX: &str = "demo-globex";
/// In test mode.
pub(super) const INITECH: &str = "demo-initech";
/// Its calls ask for a key before they read the code, and busy numbers are redialled once.
pub(super) const UMBRELLA: &str = "demo-umbrella";
/// The number of an answering machine that is asked for a key.
pub(super) const MACHINE: &str = "+13035550104";

/// The time to live of most codes.
const TIME_TO_LIVE: Duration = Duration::from_mins(3);
/// Area codes of the numbers that answer.
const AREAS: [u32; 8] = [212, 213, 312, 415, 617, 702, 713, 808];

impl Case {
    /// The maximum number of calls to its number.
    pub(super) fn max_calls(&self) -> usize {
        if self.request.tenant_id.as_str() == UMBRELLA && self.expected.0 == Status::Busy {
            2
        } else {
            1
        }
    }

    pub(super) fn id(&self) -> &str {
        self.request.delivery_id.as_str()
    }
}

/// Numbers the requests and collects them.
struct CaseList {
    run: String,
    now: Timestamp,
    cases: Vec<Case>,
}

impl CaseList {
    fn request(&self, tenant: &str, to: &str, time_to_live: Duration) -> Option<Requested> {
        let number = self.cases.len() + 1;
        Some(Requested {
            tenant_id: TenantId::parse(tenant).ok()?,
            delivery_id: DeliveryId::parse(&format!("{}-{number:02}", self.run)).ok()?,
            to: PhoneNumber::parse(to).ok()?,
            code: OtpCode::parse(&format!(
                "{:06}",
                (number * 7_654_321 + 493_027) % 1_000_000
            ))
            .ok()?,
            expires_at: self.now + time_to_live,
            locale: None,
            user_ref: None,
            extension: None,
            context: Context::default(),
            time: Some(self.now),
            trace: Trace::default(),
        })
    }

    fn add(
        &mut self,
        description: &'static str,
        tenant: &str,
        to: &str,
        expected: (Status, Option<ReasonCode>),
    ) {
        self.add_with(
            description,
            tenant,
            to,
            TIME_TO_LIVE,
            Action::None,
            expected,
        );
    }

    fn add_with(
        &mut self,
        description: &'static str,
        tenant: &str,
        to: &str,
        time_to_live: Duration,
        action: Action,
        expected: (Status, Option<ReasonCode>),
    ) {
        if let Some(request) = self.request(tenant, to, time_to_live) {
            self.cases.push(Case {
                description,
                request,
                action,
                expected,
            });
        }
    }
}

const DELIVERED: (Status, Option<ReasonCode>) = (Status::Delivered, None);

fn because(status: Status, code: ReasonCode) -> (Status, Option<ReasonCode>) {
    (status, Some(code))
}

/// All requests. The simulator takes a call's outcome from the number's last two digits.
pub(super) fn all(run: &str) -> Vec<Case> {
    let mut list = CaseList {
        run: run.to_owned(),
        now: clock::now(),
        cases: Vec::new(),
    };
    list.add_calls();
    list.add_refusals();
    list.add_actions();
    list.add_policies();
    list.add_conflict();
    list.add_queued();
    list.cases
}

impl CaseList {
    /// Calls that are placed at once: answered, not answered, and placed in spite of errors.
    fn add_calls(&mut self) {
        self.add("answered", ACME, "+14155550171", DELIVERED);
        for area in AREAS {
            for line in [20, 31, 47] {
                self.add("answered", ACME, &format!("+1{area}55501{line}"), DELIVERED);
            }
        }
        let carrier_failed = because(Status::Failed, ReasonCode::CarrierFailed);
        let unavailable = because(Status::Failed, ReasonCode::ProviderTrouble);
        let no_answer = because(Status::NoAnswer, ReasonCode::NoAnswer);
        for (description, line, expected) in [
            ("busy", "01", because(Status::Busy, ReasonCode::Busy)),
            ("no answer", "02", no_answer),
            ("the carrier fails", "03", carrier_failed),
            ("a machine answers and hears the code", "04", DELIVERED),
            (
                "hung up after a second",
                "05",
                because(Status::HungUp, ReasonCode::HungUp),
            ),
            ("declined", "06", no_answer),
            ("429, then accepted", "11", DELIVERED),
            ("429 with Retry-After, then accepted", "12", DELIVERED),
            ("500 without a call, then accepted", "13", DELIVERED),
            ("500 with a call", "14", DELIVERED),
            ("accepted, and no answer to the POST", "15", DELIVERED),
            ("accepted, after a long while", "16", DELIVERED),
            ("accepted, and the connection cut", "17", DELIVERED),
            ("503 each time", "18", unavailable),
            ("accepted, and an unreadable answer", "19", DELIVERED),
        ] {
            self.add(description, ACME, &format!("+120255501{line}"), expected);
        }
    }

    /// Requests that Twilio or the worker refuses, and test mode.
    fn add_refusals(&mut self) {
        let invalid = because(Status::Failed, ReasonCode::DestinationInvalid);
        let blocked = because(Status::Failed, ReasonCode::DestinationBlocked);
        let not_allowed = because(Status::Rejected, ReasonCode::DestinationNotAllowed);
        let unknown_tenant = because(Status::Rejected, ReasonCode::UnknownTenant);
        self.add("an invalid number at Twilio", ACME, "+15005550001", invalid);
        self.add(
            "an unreachable number at Twilio",
            ACME,
            "+15005550002",
            invalid,
        );
        self.add("a country blocked at Twilio", ACME, "+15005550003", blocked);
        self.add("a number blocked by Twilio", ACME, "+15005550004", blocked);
        self.add(
            "a country that the tenant does not allow",
            ACME,
            "+34911234567",
            not_allowed,
        );
        self.add(
            "an unknown tenant",
            "demo-unknown",
            "+16465550120",
            unknown_tenant,
        );
        self.add("test mode", INITECH, "+16465550121", DELIVERED);
        self.add_with(
            "expired on arrival",
            ACME,
            "+16465550122",
            Duration::from_secs(5),
            Action::None,
            because(Status::Expired, ReasonCode::ExpiredOnArrival),
        );
    }

    fn add_actions(&mut self) {
        self.add_with(
            "published twice",
            ACME,
            "+16465550123",
            TIME_TO_LIVE,
            Action::PublishDuplicate,
            DELIVERED,
        );
        self.add_with(
            "cancelled while ringing",
            ACME,
            "+16465550102",
            TIME_TO_LIVE,
            Action::CancelAt(Status::Ringing),
            because(Status::Cancelled, ReasonCode::CancelledByRequest),
        );
    }

    /// A tenant that asks for a key, and redials busy numbers.
    fn add_policies(&mut self) {
        let no_key = because(Status::HungUp, ReasonCode::NoKey);
        let busy = because(Status::Busy, ReasonCode::Busy);
        self.add(
            "asked for a key, and pressed",
            UMBRELLA,
            "+13035550120",
            DELIVERED,
        );
        self.add(
            "asked for a key, and asked to repeat",
            UMBRELLA,
            "+13035550107",
            DELIVERED,
        );
        self.add(
            "a machine is asked for a key, and hears no code",
            UMBRELLA,
            MACHINE,
            no_key,
        );
        self.add(
            "busy, and busy again at the redial",
            UMBRELLA,
            "+13035550101",
            busy,
        );
    }

    fn add_conflict(&mut self) {
        // The request that is added next has the same id.
        if let Some(other) = self.request(ACME, "+16465550125", TIME_TO_LIVE) {
            self.add_with(
                "its id used by another request",
                ACME,
                "+16465550124",
                TIME_TO_LIVE,
                Action::PublishConflict(Box::new(other)),
                DELIVERED,
            );
        }
    }

    /// Globex's account places one call a second, so its requests are queued.
    fn add_queued(&mut self) {
        for line in 20..26 {
            let to = format!("+3491123{line}67");
            self.add("in Spanish, a second apart", GLOBEX, &to, DELIVERED);
            if let (Some(case), Ok(locale)) = (self.cases.last_mut(), Locale::parse("es-ES")) {
                case.request.locale = Some(locale);
            }
        }
        self.add_with(
            "cancelled while queued",
            GLOBEX,
            "+34911239967",
            TIME_TO_LIVE,
            Action::CancelAt(Status::Accepted),
            because(Status::Cancelled, ReasonCode::CancelledByRequest),
        );
        // Less than the requests before them need.
        let short = Duration::from_millis(32_500);
        for line in 30..32 {
            self.add_with(
                "no slot before the code expires",
                GLOBEX,
                &format!("+3491123{line}67"),
                short,
                Action::PublishAfterOthers(short),
                because(Status::Expired, ReasonCode::AccountBacklog),
            );
        }
    }
}
