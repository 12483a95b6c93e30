//! Why Twilio could not play a document.

/// Why Twilio could not play this `TwiML`. No variant holds text that would be spoken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The document isn't well-formed.
    #[error("the TwiML is not well-formed XML")]
    Malformed(#[source] roxmltree::Error),
    /// The root element isn't `Response`.
    #[error("the root element is <{0}>, not <Response>")]
    Root(String),
    /// The parent can't contain an element of this name. Names are case-sensitive.
    #[error("<{element}> is not known inside <{parent}>")]
    Element {
        /// The element.
        element: String,
        /// The element around it.
        parent: String,
    },
    /// The element has no attribute of this name. Names are case-sensitive.
    #[error("<{element}> has no attribute {attribute}")]
    Attribute {
        /// The element.
        element: String,
        /// The attribute.
        attribute: String,
    },
    /// A required attribute is missing.
    #[error("<{element}> needs the attribute {attribute}")]
    Missing {
        /// The element.
        element: String,
        /// The attribute.
        attribute: &'static str,
    },
    /// The value of an attribute isn't valid.
    #[error("{attribute} of <{element}> is {wanted}")]
    Value {
        /// The element.
        element: String,
        /// The attribute.
        attribute: &'static str,
        /// The valid values, in words.
        wanted: &'static str,
    },
    /// The element contains text or elements that it can't.
    #[error("<{0}> holds something that does not belong there")]
    Content(String),
    /// The element has nothing to speak or to fetch.
    #[error("<{0}> is empty")]
    Empty(String),
    /// The text is longer than the voice allows.
    #[error("<Say> has more than {0} characters of text")]
    TooLong(usize),
    /// The simulator doesn't know the voice, or the voice doesn't speak the language: the call
    /// would be silent.
    #[error("the voice {voice} is not known to speak {language}")]
    Voice {
        /// The voice.
        voice: String,
        /// The language.
        language: String,
    },
    /// The voice doesn't support this SSML element: the call would be silent.
    #[error("the voice {voice} does not take SSML's <{element}>")]
    Ssml {
        /// The voice.
        voice: String,
        /// The element.
        element: String,
    },
}

impl Error {
    /// The error code that Twilio would report when the call is answered
    /// (<https://www.twilio.com/docs/api/errors>).
    pub fn code(&self) -> u32 {
        match self {
            Self::Malformed(_) => 12100,
            Self::Voice { .. } | Self::Ssml { .. } => 13511,
            Self::Empty(_) => 13520,
            Self::TooLong(_) => 13521,
            Self::Root(_)
            | Self::Element { .. }
            | Self::Attribute { .. }
            | Self::Missing { .. }
            | Self::Value { .. }
            | Self::Content(_) => 12200,
        }
    }
}
