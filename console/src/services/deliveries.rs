//! A tenant's deliveries: searching them, one with its timeline, and figures.

mod delivery;
mod figures;
mod search;
mod timeline;

pub(crate) use self::delivery::Delivery;
#[cfg(test)]
pub(crate) use self::figures::{CountryFigures, SpendFigures};
pub(crate) use self::figures::{Figures, HourFigures, figures};
pub(crate) use self::search::{DeliveryPage, DeliveryQuery, search};
#[cfg(test)]
pub(crate) use self::timeline::Step;
pub(crate) use self::timeline::{DeliveryDetails, find};
