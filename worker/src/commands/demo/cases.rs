//! The demo's requests, of every fate.

use std::time::Duration;

use voice_otp_schemas::envelope::Trace;
use voice_otp_schemas::reason::ReasonCode;
use voice_otp_schemas::request::Requested;
use voice_otp_schemas::status::Status;
use voice_otp_schemas::{Context, DeliveryId, Locale, OtpCode, PhoneNumber, TenantId, Timestamp};

use crate::verb::publish_clock;

/// One request, and how it must end.
pub(super) struct Case {
    pub(super) what: &'static str,
    pub(super) request: Requested,
    pub(super) deed: Deed,
    pub(super) ends: (Status, Option<ReasonCode>),
}

/// What is done beside publishing it.
#[derive(Debug, Clone)]
pub(super) enum Deed {
    None,
    /// It is published a second time.
    Repeat,
    /// Another request is published under its id.
    Conflict(Box<Requested>),
    /// It is taken back at this status.
    CancelAt(Status),
    /// It is published once every other request of its tenant has a status: two workers share the queue, and the order in which they
    /// admit is nobody's. Its code lives for this long from then.
    AfterOthers(Duration),
}

/// The unreadable message, and the conflicting duplicate.
pub(super) const DEAD_LETTERS: u32 = 2;

pub(super) const ACME: &str = "demo-acme";
pub(super) const GLOBEX: &str = "demo-globex";
pub(super) const INITECH: &str = "demo-initech";
/// Reads codes only to who presses a key, and calls busy lines again, once.
pub(super) const UMBRELLA: &str = "demo-umbrella";
/// A machine that is asked for a key.
pub(super) const MACHINE: &str = "+13035550104";

/// Area codes of the numbers that answer.
const AREAS: [u32; 8] = [212, 213, 312, 415, 617, 702, 713, 808];

impl Case {
    /// How often its number is called at the most.
    pub(super) fn calls(&self) -> usize {
        if self.request.tenant_id.as_str() == UMBRELLA && self.ends.0 == Status::Busy {
            2
        } else {
            1
        }
    }

    pub(super) fn id(&self) -> String {
        self.request.delivery_id.as_str().to_owned()
    }
}

impl PartialEq for Deed {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::None, Self::None) | (Self::Repeat, Self::Repeat) => true,
            (Self::CancelAt(one), Self::CancelAt(another)) => one == another,
            (Self::AfterOthers(one), Self::AfterOthers(another)) => one == another,
            _ => false,
        }
    }
}

struct Writer {
    run: String,
    now: Timestamp,
    cases: Vec<Case>,
}

impl Writer {
    fn request(&self, tenant: &str, to: &str, life: Duration) -> Option<Requested> {
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
            expires_at: self.now + life,
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
        what: &'static str,
        tenant: &str,
        to: &str,
        ends: (Status, Option<ReasonCode>),
    ) -> &mut Self {
        self.add_with(what, tenant, to, Duration::from_mins(3), Deed::None, ends)
    }

    fn add_with(
        &mut self,
        what: &'static str,
        tenant: &str,
        to: &str,
        life: Duration,
        deed: Deed,
        ends: (Status, Option<ReasonCode>),
    ) -> &mut Self {
        if let Some(request) = self.request(tenant, to, life) {
            self.cases.push(Case {
                what,
                request,
                deed,
                ends,
            });
        }
        self
    }
}

/// All of them. The simulator knows a fate by a number's last two digits.
pub(super) fn all(run: &str) -> Vec<Case> {
    let mut w = Writer {
        run: run.to_owned(),
        now: publish_clock(),
        cases: Vec::new(),
    };
    let delivered = (Status::Delivered, None);
    let because = |status, code| (status, Some(code));
    let life = Duration::from_mins(3);

    w.add("answered", ACME, "+14155550171", delivered);
    for (area, line) in AREAS
        .into_iter()
        .flat_map(|area| [area].into_iter().zip([20]).chain([(area, 31), (area, 47)]))
    {
        w.add("answered", ACME, &format!("+1{area}55501{line}"), delivered);
    }
    for (what, line, ends) in [
        ("busy", "01", because(Status::Busy, ReasonCode::Busy)),
        (
            "no answer",
            "02",
            because(Status::NoAnswer, ReasonCode::NoAnswer),
        ),
        (
            "carrier can't",
            "03",
            because(Status::Failed, ReasonCode::CarrierFailed),
        ),
        ("a machine answers, and the code is spoken", "04", delivered),
        (
            "hung up after a second",
            "05",
            because(Status::HungUp, ReasonCode::HungUp),
        ),
        (
            "declined",
            "06",
            because(Status::NoAnswer, ReasonCode::NoAnswer),
        ),
        ("429, then taken", "11", delivered),
        ("429 with Retry-After, then taken", "12", delivered),
        ("500 before taking it, then taken", "13", delivered),
        ("500 although taken", "14", delivered),
        ("taken, and no answer to the POST", "15", delivered),
        ("taken, after a long while", "16", delivered),
        ("taken, and the connection cut", "17", delivered),
        (
            "503 each time",
            "18",
            because(Status::Failed, ReasonCode::ProviderTrouble),
        ),
        ("taken, and an unreadable answer", "19", delivered),
    ] {
        w.add(what, ACME, &format!("+120255501{line}"), ends);
    }
    w.add(
        "not a number, says Twilio",
        ACME,
        "+15005550001",
        because(Status::Failed, ReasonCode::DestinationInvalid),
    )
    .add(
        "can't be reached, says Twilio",
        ACME,
        "+15005550002",
        because(Status::Failed, ReasonCode::DestinationInvalid),
    )
    .add(
        "country blocked at Twilio",
        ACME,
        "+15005550003",
        because(Status::Failed, ReasonCode::DestinationBlocked),
    )
    .add(
        "blocked by Twilio",
        ACME,
        "+15005550004",
        because(Status::Failed, ReasonCode::DestinationBlocked),
    )
    .add(
        "country not allowed",
        ACME,
        "+34911234567",
        because(Status::Rejected, ReasonCode::DestinationNotAllowed),
    )
    .add(
        "unknown tenant",
        "demo-nobody",
        "+16465550120",
        because(Status::Rejected, ReasonCode::UnknownTenant),
    )
    .add("test mode", INITECH, "+16465550121", delivered)
    .add_with(
        "expired on arrival",
        ACME,
        "+16465550122",
        Duration::from_secs(5),
        Deed::None,
        because(Status::Expired, ReasonCode::ExpiredOnArrival),
    )
    .add_with(
        "published twice",
        ACME,
        "+16465550123",
        life,
        Deed::Repeat,
        delivered,
    )
    .add_with(
        "cancelled while ringing",
        ACME,
        "+16465550102",
        life,
        Deed::CancelAt(Status::Ringing),
        because(Status::Cancelled, ReasonCode::CancelledByRequest),
    );
    w.add(
        "asked for a key, and pressed it",
        UMBRELLA,
        "+13035550120",
        delivered,
    )
    .add(
        "asked for a key, and wanted it again",
        UMBRELLA,
        "+13035550107",
        delivered,
    )
    .add(
        "a machine is asked for a key, and the code kept from it",
        UMBRELLA,
        MACHINE,
        because(Status::HungUp, ReasonCode::NoKey),
    )
    .add(
        "busy, and busy again when called once more",
        UMBRELLA,
        "+13035550101",
        because(Status::Busy, ReasonCode::Busy),
    );
    if let Some(other) = w.request(ACME, "+16465550125", life) {
        w.add_with(
            "its id taken again",
            ACME,
            "+16465550124",
            life,
            Deed::Conflict(Box::new(other)),
            delivered,
        );
    }
    // Globex' account places one call a second: these wait for their turn, in Spanish.
    for line in 20..26 {
        w.add(
            "in Spanish, a second apart",
            GLOBEX,
            &format!("+3491123{line}67"),
            delivered,
        );
        if let (Some(case), Ok(locale)) = (w.cases.last_mut(), Locale::parse("es-ES")) {
            case.request.locale = Some(locale);
        }
    }
    w.add_with(
        "cancelled while it waits",
        GLOBEX,
        "+34911239967",
        life,
        Deed::CancelAt(Status::Accepted),
        because(Status::Cancelled, ReasonCode::CancelledByRequest),
    );
    let short = Duration::from_millis(32_500);
    for line in 30..32 {
        w.add_with(
            "no slot before the code expires",
            GLOBEX,
            &format!("+3491123{line}67"),
            short,
            Deed::AfterOthers(short),
            because(Status::Expired, ReasonCode::AccountBacklog),
        );
    }
    w.cases
}
