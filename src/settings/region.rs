//! Twilio's regions and edges.

use voice_otp_schemas::Refused;

/// A Twilio region and the edge through which it is reached: `api.{edge}.{region}.twilio.com`
/// (<https://www.twilio.com/docs/global-infrastructure>).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Region {
    /// The region, for example `ie1`.
    pub region: String,
    /// The edge, for example `dublin`.
    pub edge: String,
}

impl Region {
    /// Parses `region` or `edge.region`. A region alone gets the edge at its own place.
    ///
    /// # Errors
    /// [`Refused`] says what a region must be.
    pub fn parse(text: &str) -> Result<Self, Refused> {
        let is_word = |part: &str| {
            (2..=24).contains(&part.len())
                && part
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        };
        let (edge, region) = match text.split_once('.') {
            Some((edge, region)) => (edge, region),
            None => (nearby_edge(text).unwrap_or_default(), text),
        };
        if !is_word(edge) || !is_word(region) {
            return Err(Refused(
                "a Twilio region with its edge, for example dublin.ie1, or us1, ie1, au1 or jp1",
            ));
        }
        Ok(Self {
            region: region.to_owned(),
            edge: edge.to_owned(),
        })
    }
}

/// The edge at the same place as a region
/// (<https://www.twilio.com/docs/global-infrastructure/edge-locations>).
fn nearby_edge(region: &str) -> Option<&'static str> {
    match region {
        "us1" => Some("ashburn"),
        "ie1" => Some("dublin"),
        "au1" => Some("sydney"),
        "jp1" => Some("tokyo"),
        _ => None,
    }
}

impl std::fmt::Display for Region {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.edge, self.region)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_brings_its_edge() {
        assert_eq!(Region::parse("ie1").unwrap().to_string(), "dublin.ie1");
        assert_eq!(
            Region::parse("sydney.au1").unwrap().to_string(),
            "sydney.au1"
        );
        assert!(Region::parse("evil.example.com").is_err());
    }
}
