//! Reads the values of keys: flags, numbers, durations, addresses, paths and choices.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::node::ScalarValue;
use super::problem::did_you_mean;
use super::secrets::Environment;
use super::section::Field;
use crate::model::units::file_path::looks_like_path;

impl Field<'_> {
    /// A list of distinct texts that `check` accepts.
    pub(super) fn texts<T: PartialEq>(
        &self,
        allowed: &str,
        check: impl Fn(&str) -> Result<T, String>,
    ) -> Vec<T> {
        let mut texts = Vec::new();
        for item in self.list() {
            match item.checked(allowed, &check) {
                Some(text) if texts.contains(&text) => {
                    item.refuse("repeated", "each value once");
                }
                Some(text) => texts.push(text),
                None => {}
            }
        }
        texts
    }

    /// True or false.
    pub(super) fn flag(&self) -> Option<bool> {
        if let ScalarValue::Bool(flag, _) = self.node.value {
            return Some(flag);
        }
        let quoted = self.quoted(|text| matches!(text, "true" | "false"));
        self.refuse_kind("true or false", &format!("true, false{quoted}"));
        None
    }

    /// A hint to remove the quotes, if they are all that is wrong.
    fn quoted(&self, is_right: impl Fn(&str) -> bool) -> String {
        match &self.node.value {
            ScalarValue::Text(text) if is_right(text) => format!(" (without quotes: {text})"),
            _ => String::new(),
        }
    }

    /// A whole number from `min` to `max`.
    pub(super) fn whole_number(&self, min: u64, max: u64) -> Option<u64> {
        let allowed = match max {
            u64::MAX => format!("a whole number from {min}"),
            _ => format!("a whole number from {min} to {max}"),
        };
        let ScalarValue::Number(whole, _) = &self.node.value else {
            let quoted = self.quoted(|text| text.parse::<u64>().is_ok());
            self.refuse_kind("a number", &format!("{allowed}{quoted}"));
            return None;
        };
        match whole.map(u64::try_from) {
            Some(Ok(number)) if (min..=max).contains(&number) => return Some(number),
            Some(_) => self.refuse("out of range", allowed),
            None => self.refuse("not a whole number", allowed),
        }
        None
    }

    /// A duration from `min` to `max`. Each bound has the name of its origin, such as `" (poll.interval)"`, or
    /// an empty text.
    pub(super) fn duration(
        &self,
        min: (Duration, &str),
        max: (Duration, &str),
    ) -> Option<Duration> {
        let shown = |(bound, origin): (Duration, &str)| {
            format!("{}{origin}", humantime::format_duration(bound))
        };
        let allowed = format!(
            "{} to {}, written as 500ms, 5s or 1m 30s",
            shown(min),
            shown(max)
        );
        if let ScalarValue::Number(_, spelling) = &self.node.value {
            self.refuse(
                "a number without a unit",
                format!("{allowed}, such as {spelling}s"),
            );
            return None;
        }
        let duration = self.checked(&allowed, |text| {
            humantime::parse_duration(text).map_err(|error| format!("not a duration ({error})"))
        })?;
        if duration < min.0 {
            self.refuse("too short", allowed);
        } else if duration > max.0 {
            self.refuse("too long", allowed);
        } else {
            return Some(duration);
        }
        None
    }

    /// An IP address and a port to listen on.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        const ALLOWED: &str = "IP:PORT, such as 0.0.0.0:8080, 127.0.0.1:8080 or [::]:8080";
        self.checked(ALLOWED, |text| {
            text.parse()
                .map_err(|_| "not an address to listen on".to_owned())
        })
    }

    /// The path of a file that can be read now. The value may be the secret itself in the place of its path, so a
    /// problem shows it only if it looks like a path.
    pub(super) fn file(&self, allowed: &str, environment: &dyn Environment) -> Option<PathBuf> {
        let text = self.clone().into_secret().text(allowed)?;
        let path = PathBuf::from(text);
        let Err(error) = environment.check_file(&path) else {
            return Some(path);
        };
        let (shown, hint) = match looks_like_path(text) {
            true if path.starts_with("~") => (true, " (~ is not expanded here)"),
            true => (true, ""),
            false => (
                false,
                " (the value is not shown, because it does not look like a path)",
            ),
        };
        let shown = self.node.value.display_text().filter(|_| shown);
        let problem = format!("cannot be read: {error}{hint}");
        self.refuse_showing(shown, problem, allowed.to_owned());
        None
    }

    /// One of the named choices.
    pub(super) fn one_of<T: Copy>(&self, choices: &[(&str, T)]) -> Option<T> {
        let names = || choices.iter().map(|(name, _)| *name);
        let allowed = names().collect::<Vec<_>>().join(", ");
        self.checked(&allowed, |text| {
            choices
                .iter()
                .find(|(name, _)| *name == text)
                .map(|(_, choice)| *choice)
                .ok_or_else(|| match did_you_mean(text, names()) {
                    Some(meant) => format!("unknown, did you mean {meant}?"),
                    None => "unknown".to_owned(),
                })
        })
    }
}
