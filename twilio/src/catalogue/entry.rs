//! The form of the catalogue's entries.

use voice_otp::call::failure::{Class, Fault};

pub(super) const CREDENTIALS: Class = Class::Permanent(Fault::Credentials);
pub(super) const TENANT: Class = Class::Permanent(Fault::Tenant);
pub(super) const DESTINATION: Class = Class::Permanent(Fault::Destination);
pub(super) const BLOCKED: Class = Class::Permanent(Fault::Blocked);
pub(super) const INTERNAL: Class = Class::Permanent(Fault::Internal);

/// An error code of Twilio's.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// The code.
    pub code: u32,
    /// The class of the failure, which decides what happens next.
    pub class: Class,
    /// A sentence for the tenant: what happened, and what to do.
    pub tenant_message: &'static str,
    /// A clause for the operator: what happened.
    pub operator_message: &'static str,
}

/// An entry: code, class, the clause for the operator, the sentence for the tenant.
pub(super) const fn entry(
    code: u32,
    class: Class,
    operator_message: &'static str,
    tenant_message: &'static str,
) -> Entry {
    Entry {
        code,
        class,
        tenant_message,
        operator_message,
    }
}
