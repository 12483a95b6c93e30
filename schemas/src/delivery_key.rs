//! The key of a delivery.

use crate::{DeliveryId, TenantId};

/// The idempotency key of a delivery: the publisher's id for it, within its tenant. Prints as
/// `tenant/delivery`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeliveryKey {
    /// The tenant that the delivery belongs to.
    pub tenant_id: TenantId,
    /// The delivery's id, unique within the tenant.
    pub delivery_id: DeliveryId,
}

impl std::fmt::Display for DeliveryKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.tenant_id, self.delivery_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_key_prints_its_tenant_and_its_id() {
        let key = DeliveryKey {
            tenant_id: TenantId::parse("acme").unwrap(),
            delivery_id: DeliveryId::parse("login-1").unwrap(),
        };
        assert_eq!(key.to_string(), "acme/login-1");
    }
}
