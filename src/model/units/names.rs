//! Validation of names: topics and groups by Kafka's rules, everything else by Kubernetes'.

/// Valid topic names, for error messages.
pub const TOPIC: &str = "1 to 249 of letters, digits, . _ -";
/// Valid group IDs.
pub const GROUP: &str = "a consumer group's group.id, without control characters";
/// Valid label values; HPAs refer to clusters and targets by label values.
pub const LABEL_VALUE: &str =
    "1 to 63 of letters, digits, . _ -, with a letter or digit at both ends";
/// Valid namespace names.
pub const NAMESPACE: &str =
    "a namespace: 1 to 63 of lower-case letters, digits, -, with a letter or digit at both ends";
/// Valid Service names.
pub const SERVICE: &str =
    "a Service: 1 to 63 of lower-case letters, digits, -, with a letter or digit at both ends";
/// Valid names of most Kubernetes objects: ConfigMaps, Secrets, Leases and everything that can be scaled.
pub const OBJECT: &str = "1 to 253 of lower-case letters, digits, . -, with a letter or digit at both ends of each part between dots";

/// Valid addresses.
pub const ADDRESS: &str = "a host's name or IP address and a port, as 10.1.2.3:6443 or [::1]:6443";

/// Splits `NAMESPACE/NAME` of a Kubernetes object; `None` if the text is something else.
#[must_use]
pub fn split_namespaced(text: &str) -> Option<(&str, &str)> {
    let (namespace, name) = text.split_once('/')?;
    let is_one = !namespace.is_empty() && !name.is_empty() && !name.contains('/');
    is_one.then_some((namespace, name))
}

/// The group and the version in an API version of Kubernetes such as `apps/v1`. The core group is empty.
#[must_use]
pub fn split_api_version(api_version: &str) -> (&str, &str) {
    api_version.split_once('/').unwrap_or(("", api_version))
}

/// Checks a topic name.
///
/// # Errors
/// The reason why it is invalid.
pub fn topic(name: &str) -> Result<&str, String> {
    if name == "." || name == ".." {
        return Err("not a topic's name".into());
    }
    chars_of(name, |c| {
        c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
    })?;
    within(name, 249)
}

/// Checks a group ID.
///
/// # Errors
/// The reason why it is invalid.
pub fn group(name: &str) -> Result<&str, String> {
    chars_of(name, |c| !c.is_control())?;
    // Kafka writes the length as a signed 16-bit number.
    within(name, 32_767)
}

/// Checks a non-empty label value.
///
/// # Errors
/// The reason why it is invalid.
pub fn label_value(name: &str) -> Result<&str, String> {
    chars_of(name, |c| {
        c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
    })?;
    alphanumeric_ends(name)?;
    within(name, 63)
}

/// Checks a namespace name.
///
/// # Errors
/// The reason why it is invalid.
pub fn namespace(name: &str) -> Result<&str, String> {
    chars_of(name, |c| {
        c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'
    })?;
    alphanumeric_ends(name)?;
    within(name, 63)
}

/// Checks a Service name, which follows the rules of namespaces.
///
/// # Errors
/// The reason why it is invalid.
pub fn service(name: &str) -> Result<&str, String> {
    namespace(name)
}

/// Checks the name of a Kubernetes object: a DNS subdomain.
///
/// # Errors
/// The reason why it is invalid.
pub fn object(name: &str) -> Result<&str, String> {
    chars_of(name, |c| {
        c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '-')
    })?;
    name.split('.').try_for_each(alphanumeric_ends)?;
    within(name, 253)
}

/// Checks a host and port.
///
/// # Errors
/// The reason why it is invalid.
pub fn address(text: &str) -> Result<&str, String> {
    let (host, port) = text.rsplit_once(':').ok_or("there is no port in it")?;
    match port.parse::<u16>() {
        Ok(1..) => {}
        _ => return Err(format!("{port:?} is not a port")),
    }
    let is_v6 = host.starts_with('[') && host.ends_with(']');
    chars_of(host, |c| {
        c.is_ascii_alphanumeric()
            || matches!(c, '.' | '-')
            || (is_v6 && matches!(c, ':' | '[' | ']'))
    })?;
    within(host, 253)?;
    if host.is_empty() {
        return Err("there is no host in it".into());
    }
    Ok(text)
}

fn chars_of(name: &str, allowed: impl Fn(char) -> bool) -> Result<(), String> {
    match name.chars().find(|c| !allowed(*c)) {
        Some(odd) => Err(format!("{odd:?} is not allowed in it")),
        None => Ok(()),
    }
}

fn alphanumeric_ends(name: &str) -> Result<(), String> {
    let fits = |end: Option<char>| end.is_some_and(|c| c.is_ascii_alphanumeric());
    if fits(name.chars().next()) && fits(name.chars().next_back()) {
        return Ok(());
    }
    Err("does not begin and end with a letter or digit".into())
}

fn within(name: &str, bytes_max: usize) -> Result<&str, String> {
    match name.len() {
        length if length > bytes_max => Err(format!("{length} characters long")),
        _ => Ok(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn api_versions_have_a_group_and_a_version() {
        for (text, expected) in [
            ("apps/v1", ("apps", "v1")),
            ("v1", ("", "v1")),
            ("", ("", "")),
        ] {
            assert_eq!(split_api_version(text), expected);
        }
    }

    #[test]
    fn names_follow_kafka_and_kubernetes_rules() {
        let (longest_topic, longest_label) = ("t".repeat(249), "l".repeat(63));
        for good in [
            "orders",
            "Orders_v2.raw-1",
            "__consumer_offsets",
            &longest_topic,
        ] {
            assert_eq!(topic(good), Ok(good));
        }
        for bad in [".", "..", "a b", "a/b", "größe", &"t".repeat(250)] {
            assert!(topic(bad).is_err(), "{bad}");
        }
        for good in ["g", "group with spaces", "größe", "a/b:c"] {
            assert_eq!(group(good), Ok(good));
        }
        assert!(group("a\nb").is_err() && group(&"g".repeat(32_768)).is_err());
        for good in ["main", "eu-1", "A.b_c", &longest_label] {
            assert_eq!(label_value(good), Ok(good));
        }
        for bad in ["-a", "a-", "a b", "a/b", "", &"l".repeat(64)] {
            assert!(label_value(bad).is_err(), "{bad}");
        }
        for good in ["billing", "billing.v2", "0-a.b-1"] {
            assert_eq!(object(good), Ok(good));
        }
        for bad in [
            "", ".", "..", "a..b", "a.-b", "a-.b", ".a", "a.", "A", "a/b", "a%2fb",
        ] {
            assert!(object(bad).is_err(), "{bad}");
        }
        assert_eq!(namespace("shop-1"), Ok("shop-1"));
        for bad in ["Shop", "shop_1", "-shop", "shop.eu", ""] {
            assert!(namespace(bad).is_err(), "{bad}");
        }
    }
}
