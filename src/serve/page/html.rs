//! Writes HTML. All text and all attribute values are escaped here, and only here: markup, and the characters that
//! [`untrusted_text`](crate::model::units::untrusted_text) escapes for terminals. Names of elements and attributes are
//! constants of the program.

use std::fmt::{self, Display, Write as _};

use crate::model::units::untrusted_text::write_escaped;

/// An attribute and its value.
pub(crate) type Attribute<'a> = (&'static str, &'a dyn Display);

/// HTML that is being written.
#[derive(Debug, Default)]
pub(crate) struct Html(String);

impl Html {
    /// Begins a document.
    pub(crate) fn document(content: impl FnOnce(&mut Self)) -> String {
        let mut html = Self("<!DOCTYPE html>\n".to_owned());
        content(&mut html);
        html.0
    }

    /// Writes an element with its content.
    pub(crate) fn element(
        &mut self,
        name: &'static str,
        attributes: &[Attribute<'_>],
        content: impl FnOnce(&mut Self),
    ) {
        self.start(name, attributes);
        content(self);
        self.0.push_str("</");
        self.0.push_str(name);
        self.0.push('>');
    }

    /// Writes an element with text only.
    pub(crate) fn text_element(
        &mut self,
        name: &'static str,
        attributes: &[Attribute<'_>],
        text: impl Display,
    ) {
        self.element(name, attributes, |html| html.text(text));
    }

    /// Writes an element that has no content, such as `input`.
    pub(crate) fn void(&mut self, name: &'static str, attributes: &[Attribute<'_>]) {
        self.start(name, attributes);
    }

    /// Writes text.
    pub(crate) fn text(&mut self, text: impl Display) {
        // Writing to a String does not fail.
        let _ = write!(Escaper(&mut self.0), "{text}");
    }

    /// Writes a style sheet of the program, so that a document needs no other file.
    pub(crate) fn style_sheet(&mut self, css: &'static str) {
        self.0.push_str("<style>\n");
        self.0.push_str(css);
        self.0.push_str("</style>\n");
    }

    /// Ends a line, so that the source can be read.
    pub(crate) fn line(&mut self) {
        self.0.push('\n');
    }

    fn start(&mut self, name: &'static str, attributes: &[Attribute<'_>]) {
        self.0.push('<');
        self.0.push_str(name);
        for (attribute, value) in attributes {
            self.0.push(' ');
            self.0.push_str(attribute);
            self.0.push_str("=\"");
            self.text(value);
            self.0.push('"');
        }
        self.0.push('>');
    }
}

/// Escapes all text that is written through it.
struct Escaper<'a>(&'a mut String);

impl fmt::Write for Escaper<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            match character {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                other => write_escaped(self.0, other)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::units::untrusted_text::is_safe;

    fn written(text: &str) -> String {
        let mut html = Html::default();
        html.element("p", &[("title", &text)], |html| html.text(text));
        html.0
    }

    #[test]
    fn text_and_attributes_are_escaped() {
        for (text, expected) in [
            ("größe.日本", "größe.日本"),
            (
                "<script>alert(1)</script>",
                "&lt;script&gt;alert(1)&lt;/script&gt;",
            ),
            ("\" onclick='x' a=\"", "&quot; onclick=&#39;x&#39; a=&quot;"),
            ("a&amp;b", "a&amp;amp;b"),
            ("\u{202e}gnillib", "\\u{202e}gnillib"),
            ("a\r\n\x1b[2J\0", "a\\r\\n\\u{1b}[2J\\u{0}"),
        ] {
            assert_eq!(
                written(text),
                format!("<p title=\"{expected}\">{expected}</p>")
            );
        }
    }

    proptest! {
        #[test]
        fn text_is_escaped_in_markup(text in "(?s).{0,60}|[<>&\"'= a/]{0,40}") {
            let html = written(&text);
            let inner = html.strip_prefix("<p title=\"").unwrap().strip_suffix("</p>").unwrap();
            prop_assert_eq!(inner.matches('"').count(), 1);
            prop_assert_eq!(inner.matches('<').count(), 0);
            prop_assert_eq!(inner.matches('>').count(), 1);
            prop_assert!(html.chars().all(is_safe));
        }
    }
}
