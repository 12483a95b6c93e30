//! Checks of XML elements that `TwiML` and SSML share.

use roxmltree::Node;

use super::error::Error;

/// The namespace of the prefix `xml`.
pub(super) const XML_NAMESPACE: &str = "http://www.w3.org/XML/1998/namespace";

/// The name of an element. A name in a foreign namespace gets a prefix, since it isn't one of
/// Twilio's.
pub(super) fn name(node: Node<'_, '_>) -> String {
    let tag = node.tag_name();
    match tag.namespace() {
        None => tag.name().to_owned(),
        Some(_) => format!("?:{}", tag.name()),
    }
}

/// Checks that an element has no attributes except these.
pub(super) fn check_attributes(node: Node<'_, '_>, known: &[&str]) -> Result<(), Error> {
    for attribute in node.attributes() {
        let attribute = match attribute.namespace() {
            None => attribute.name().to_owned(),
            Some(XML_NAMESPACE) => format!("xml:{}", attribute.name()),
            Some(_) => format!("?:{}", attribute.name()),
        };
        if !known.contains(&attribute.as_str()) {
            return Err(Error::Attribute {
                element: name(node),
                attribute,
            });
        }
    }
    Ok(())
}

/// The child elements of an element that can't contain text.
pub(super) fn child_elements<'a, 'input>(
    node: Node<'a, 'input>,
) -> Result<Vec<Node<'a, 'input>>, Error> {
    if node.children().any(has_text) {
        return Err(Error::Content(name(node)));
    }
    Ok(node.children().filter(Node::is_element).collect())
}

/// Checks that an element contains neither text nor elements.
pub(super) fn check_no_content(node: Node<'_, '_>) -> Result<(), Error> {
    check_no_elements(node)?;
    if node.children().any(has_text) {
        return Err(Error::Content(name(node)));
    }
    Ok(())
}

/// Checks that an element contains no elements.
pub(super) fn check_no_elements(node: Node<'_, '_>) -> Result<(), Error> {
    if node.children().any(|child| child.is_element()) {
        return Err(Error::Content(name(node)));
    }
    Ok(())
}

/// Checks that an element contains text and no elements.
pub(super) fn check_only_text(node: Node<'_, '_>) -> Result<(), Error> {
    check_no_elements(node)?;
    if !node.children().any(has_text) {
        return Err(Error::Empty(name(node)));
    }
    Ok(())
}

/// The value of an attribute that must be present and not empty.
pub(super) fn required<'a>(node: Node<'a, '_>, attribute: &'static str) -> Result<&'a str, Error> {
    node.attribute(attribute)
        .filter(|text| !text.is_empty())
        .ok_or_else(|| Error::Missing {
            element: name(node),
            attribute,
        })
}

/// The value of an attribute that is a whole number, if it is present.
pub(super) fn whole_number(
    node: Node<'_, '_>,
    attribute: &'static str,
    wanted: &'static str,
) -> Result<Option<u32>, Error> {
    let Some(text) = node.attribute(attribute) else {
        return Ok(None);
    };
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(number) if digits => Ok(Some(number)),
        _ => Err(invalid_value(node, attribute, wanted)),
    }
}

/// The error for an element that its parent can't contain.
pub(super) fn unknown_element(node: Node<'_, '_>) -> Error {
    let parent = node.parent_element().map_or_else(String::new, name);
    Error::Element {
        element: name(node),
        parent,
    }
}

/// The error for an attribute whose value isn't valid.
pub(super) fn invalid_value(
    node: Node<'_, '_>,
    attribute: &'static str,
    wanted: &'static str,
) -> Error {
    Error::Value {
        element: name(node),
        attribute,
        wanted,
    }
}

/// Whether a node is text that isn't only white space.
fn has_text(node: Node<'_, '_>) -> bool {
    node.is_text() && node.text().is_some_and(|text| !text.trim().is_empty())
}
