//! The work behind the API and the pages. Both call these services and share their types; neither
//! calls the other.

pub(crate) mod accounts;
pub(crate) mod audit;
pub(crate) mod deliveries;
pub(crate) mod methods;
pub(crate) mod provider;
pub(crate) mod sessions;
pub(crate) mod system;
pub(crate) mod tenants;
pub(crate) mod test_calls;
