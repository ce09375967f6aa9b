//! Escapes text from others, such as group IDs and brokers' messages, for terminals and logs: a terminal obeys escape
//! sequences, and a line break looks like another line of the log.

use std::fmt::{self, Write as _};

/// Maximum characters of a message; longer text is truncated.
pub const MAX_MESSAGE_CHARS: usize = 1_000;

/// Maximum characters of a name; longer text is truncated. Kafka's topics have at most 249, group IDs 32,767.
pub const MAX_NAME_CHARS: usize = 255;

/// Displays text from others: unsafe characters are escaped as in Rust's literals, and longer text is truncated, with
/// the number of characters left out.
#[derive(Clone, Copy, Debug)]
pub struct Printable<'a> {
    text: &'a str,
    max: usize,
}

impl<'a> Printable<'a> {
    /// A name, for example a group ID.
    #[must_use]
    pub fn name(text: &'a str) -> Self {
        Self {
            text,
            max: MAX_NAME_CHARS,
        }
    }

    /// A message, for example a broker's reason to refuse a login.
    #[must_use]
    pub fn message(text: &'a str) -> Self {
        Self {
            text,
            max: MAX_MESSAGE_CHARS,
        }
    }

    /// Text of any length, which is not truncated since lagwise wrote part of it.
    #[must_use]
    pub fn unbounded(text: &'a str) -> Self {
        Self {
            text,
            max: usize::MAX,
        }
    }
}

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Nearly always. A text has at most as many characters as bytes.
        if self.text.len() <= self.max && self.text.chars().all(is_safe) {
            return f.write_str(self.text);
        }
        let mut characters = self.text.chars();
        for character in characters.by_ref().take(self.max) {
            write_escaped(f, character)?;
        }
        match characters.count() {
            0 => Ok(()),
            more => write!(f, "... ({more} more characters)"),
        }
    }
}

/// Truncates a message that is kept, as [`Printable::message`] does one that is shown. Nothing is escaped.
#[must_use]
pub fn cut_message(mut text: String) -> String {
    let Some((end, _)) = text.char_indices().nth(MAX_MESSAGE_CHARS) else {
        return text;
    };
    let more = text.get(end..).unwrap_or_default().chars().count();
    text.truncate(end);
    // Writing to a String does not fail.
    let _ = write!(text, "... ({more} more characters)");
    text.shrink_to_fit();
    text
}

/// Escapes text of several lines that may contain text from others; the line breaks stay.
#[must_use]
pub fn printable_lines(text: &str) -> String {
    let mut printable = String::with_capacity(text.len());
    for character in text.chars() {
        // Writing to a String does not fail.
        let _ = match character {
            '\n' => printable.write_char('\n'),
            other => write_escaped(&mut printable, other),
        };
    }
    printable
}

/// Escapes unsafe characters in JSON, without a change of its meaning. Serializers escape only some control characters.
/// The line breaks stay, since they are between strings.
#[must_use]
pub fn printable_json(json: &str) -> String {
    escape_json(json, |printable, character| {
        for unit in character.encode_utf16(&mut [0; 2]) {
            // Writing to a String does not fail.
            let _ = write!(printable, "\\u{unit:04x}");
        }
    })
}

/// Returns `yaml` if it has no unsafe characters, otherwise the same value as JSON, which is also YAML. In JSON every
/// text is in double quotes, the only form in which YAML has escapes.
///
/// # Errors
/// `json` failed.
pub fn printable_yaml<E>(
    yaml: String,
    json: impl FnOnce() -> Result<String, E>,
) -> Result<String, E> {
    if yaml.chars().all(|c| c == '\n' || is_safe(c)) {
        return Ok(yaml);
    }
    Ok(escape_json(&json()?, |printable, character| {
        // YAML does not join the two halves that JSON needs for some characters.
        let _ = write!(printable, "\\U{:08x}", u32::from(character));
    }))
}

fn escape_json(json: &str, write_escape: impl Fn(&mut String, char)) -> String {
    let mut printable = String::with_capacity(json.len());
    for character in json.chars() {
        if character == '\n' || is_safe(character) {
            printable.push(character);
        } else {
            write_escape(&mut printable, character);
        }
    }
    printable
}

/// Writes a character, escaped if it is unsafe.
///
/// # Errors
/// The writer failed.
pub fn write_escaped(to: &mut impl fmt::Write, character: char) -> fmt::Result {
    if is_safe(character) {
        to.write_char(character)
    } else {
        write!(to, "{}", character.escape_default())
    }
}

/// Whether a character only shows itself. Control characters move the cursor, end the line, or begin an escape
/// sequence; the others here change the direction or the line of the text around them, or show nothing, so that two
/// names look the same.
#[must_use]
pub fn is_safe(character: char) -> bool {
    !character.is_control()
        && !matches!(
            character,
            '\u{00ad}'
                | '\u{061c}'
                | '\u{115f}'
                | '\u{1160}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{3164}'
                | '\u{feff}'
                | '\u{ffa0}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e0fff}'
        )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ordinary_text_is_shown_as_it_is() {
        for text in ["", "billing", "größe.日本", "a\\b \"c\"", "{x=1}"] {
            assert_eq!(Printable::name(text).to_string(), text);
        }
    }

    #[test]
    fn control_characters_are_escaped() {
        let cases = [
            ("a\x1b[2Jb", "a\\u{1b}[2Jb"),
            ("a\r\nlevel=ERROR b", "a\\r\\nlevel=ERROR b"),
            ("tab\there", "tab\\there"),
            ("\u{9b}31m", "\\u{9b}31m"),
            ("nul\0", "nul\\u{0}"),
            ("\u{202e}gnillib", "\\u{202e}gnillib"),
            ("a\u{2028}b", "a\\u{2028}b"),
            ("\u{7f}", "\\u{7f}"),
            ("pay\u{200b}ments", "pay\\u{200b}ments"),
            ("\u{feff}orders", "\\u{feff}orders"),
            ("orders\u{e0061}", "orders\\u{e0061}"),
        ];
        for (text, expected) in cases {
            assert_eq!(Printable::name(text).to_string(), expected);
        }
    }

    #[test]
    fn long_text_is_cut_and_says_so() {
        let text = "g".repeat(MAX_NAME_CHARS);
        assert_eq!(Printable::name(&text).to_string(), text);
        let expected = format!("{text}... (32512 more characters)");
        assert_eq!(Printable::name(&"g".repeat(32_767)).to_string(), expected);
        let umlauts = "ü".repeat(MAX_NAME_CHARS);
        assert_eq!(Printable::name(&umlauts).to_string(), umlauts);
    }

    #[test]
    fn yaml_means_the_same_after_escaping() {
        for (text, expected) in [
            ("a\u{202e}b", r"a\U0000202eb"),
            ("pay\u{200b}ments\u{e0061}", r"pay\U0000200bments\U000e0061"),
            (
                "\u{9b}31m # no comment\n---\nc: d",
                r"\U0000009b31m # no comment\n---\nc: d",
            ),
        ] {
            let value = serde_json::json!({ text: [text, 1] });
            let yaml = format!("{text}: raw\n");
            let printable = printable_yaml(yaml, || serde_json::to_string_pretty(&value)).unwrap();
            assert!(printable.chars().all(|c| c == '\n' || is_safe(c)));
            assert!(printable.contains(expected), "{printable}");
            let read: serde_json::Value = serde_saphyr::from_str(&printable).unwrap();
            assert_eq!(read, value);
        }
        let yaml = "a: größe\nb: [1]\n".to_owned();
        let kept = printable_yaml(yaml.clone(), || Err("no JSON is needed"));
        assert_eq!(kept, Ok(yaml));
    }

    #[test]
    fn json_means_the_same_after_escaping() {
        let text = "a\u{9b}2Jb\u{202e}c\u{7f}d\u{e0061}e\x1b\n\t\"größe";
        let value = serde_json::json!({ text: [text, 1] });
        let json = serde_json::to_string_pretty(&value).unwrap();
        let printable = printable_json(&json);
        assert!(printable.chars().all(|c| c == '\n' || is_safe(c)));
        assert!(
            printable.contains(r"a\u009b2Jb\u202ec\u007fd\udb40\udc61e"),
            "{printable}"
        );
        let parsed: serde_json::Value = serde_json::from_str(&printable).unwrap();
        assert_eq!(parsed, value);
    }

    #[test]
    fn a_message_that_is_kept_is_cut_as_one_that_is_shown() {
        for text in ["", "a\x1bb", "ü".repeat(MAX_MESSAGE_CHARS).as_str()] {
            assert_eq!(cut_message(text.to_owned()), text);
        }
        for text in ["x".repeat(100_000), "ü".repeat(MAX_MESSAGE_CHARS + 1)] {
            let cut = cut_message(text.clone());
            assert_eq!(cut, Printable::message(&text).to_string());
        }
    }

    proptest! {
        #[test]
        fn nothing_unsafe_or_too_long_is_shown(text in "\\PC{0,20}|(?s).{0,900}") {
            let shown = Printable::message(&text).to_string();
            prop_assert!(shown.chars().all(is_safe), "{shown:?}");
            // The longest escape has ten characters.
            prop_assert!(shown.chars().count() <= 10 * MAX_MESSAGE_CHARS + 40);
            // Short and safe text stays unchanged.
            let again = Printable::unbounded(&shown).to_string();
            prop_assert_eq!(again, shown);
        }
    }
}
