//! Patterns for the hosts of brokers.

use core::net::IpAddr;

use serde::{Serialize, Serializer};

use super::glob::Glob;

/// A pattern for the name or address of a host, in which `*` stands for any number of characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPattern {
    /// In lower case.
    glob: Glob,
    /// Whether it is written as part of an IP address. A name such as `10.example.com` must not match `10.*` then.
    is_address: bool,
}

/// Valid patterns, for error messages.
pub const HOST_PATTERN: &str =
    "hosts without a port, in which * stands for any characters, such as *.kafka.svc or 10.0.*";

impl HostPattern {
    /// Parses a pattern.
    ///
    /// # Errors
    /// The reason why it is invalid.
    pub fn parse(text: &str) -> Result<Self, String> {
        let is_allowed =
            |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '*' | ':');
        if let Some(odd) = text.chars().find(|c| !is_allowed(*c)) {
            return Err(format!("{odd:?} is not allowed in it"));
        }
        if text.is_empty() {
            return Err("it is empty".into());
        }
        // An IPv6 address has two colons or more.
        if text.matches(':').count() == 1 {
            return Err("it has a port".into());
        }
        let has_letters = text.chars().any(|c| c.is_ascii_alphabetic());
        let glob = Glob::new(canonical(text));
        Ok(Self {
            is_address: !glob.is_any() && (text.contains(':') || !has_letters),
            glob,
        })
    }

    /// Whether a broker's host matches.
    #[must_use]
    pub fn matches(&self, host: &str) -> bool {
        let host = canonical(host);
        (!self.is_address || host.parse::<IpAddr>().is_ok()) && self.glob.matches(&host)
    }
}

/// Whether lagwise may connect to and log in at a host that a broker advertises: one of `allowed`, which is empty if all
/// are, or one of `bootstrap`.
pub fn allows_host<'a>(
    allowed: &[HostPattern],
    bootstrap: impl IntoIterator<Item = &'a str>,
    host: &str,
) -> bool {
    allowed.is_empty()
        || allowed.iter().any(|allowed| allowed.matches(host))
        || bootstrap.into_iter().any(|server| server == host)
}

impl Serialize for HostPattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.glob.as_str())
    }
}

/// Names of hosts are the same in upper and lower case, and with a dot at the end.
fn canonical(host: &str) -> String {
    let host = host.strip_suffix('.').unwrap_or(host);
    host.to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_match_by_name_or_address() {
        for (pattern, host, expected) in [
            ("*.kafka.svc", "b-0.kafka.svc", true),
            ("*.kafka.svc", "b-0.brokers.kafka.svc", true),
            ("*.kafka.svc", "B-0.Kafka.SVC.", true),
            ("*.Kafka.svc.", "b-0.kafka.svc", true),
            ("*.kafka.svc", "kafka.svc", false),
            ("*.kafka.svc", "b-0.kafka.svc.evil.example", false),
            ("*.kafka.svc", "evil.example/x.kafka.svc.example", false),
            ("kafka", "kafka", true),
            ("kafka", "kafka2", false),
            ("10.0.*", "10.0.3.4", true),
            ("10.0.*", "10.0.evil.example", false),
            ("10.0.*", "10.1.0.0", false),
            ("fd00::*", "fd00::1", true),
            ("fd00::*", "fe80::1", false),
            ("*", "anything", true),
            ("*", "10.0.0.1", true),
        ] {
            let pattern = HostPattern::parse(pattern).unwrap();
            assert_eq!(pattern.matches(host), expected, "{pattern:?} {host}");
        }
    }

    #[test]
    fn a_pattern_is_a_host_without_a_port() {
        for (wrong, why) in [
            ("", "empty"),
            ("kafka:9092", "port"),
            ("*.svc:*", "port"),
            ("a b", "' '"),
            ("https://kafka", "'/'"),
            ("[fd00::1]", "'['"),
        ] {
            let error = HostPattern::parse(wrong).unwrap_err();
            assert!(error.contains(why), "{wrong}: {error}");
        }
    }
}
