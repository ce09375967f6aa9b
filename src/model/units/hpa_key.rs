//! The identity of an HPA.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::names::split_namespaced;

/// An HPA's namespace and name. `Display` gives `namespace/name`. Only command-line arguments are parsed; everywhere
/// else the key is passed on as a value.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HpaKey {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

impl HpaKey {
    pub fn new(namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for HpaKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl fmt::Debug for HpaKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is not `NAMESPACE/HPA`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected NAMESPACE/HPA, such as shop/billing")]
pub struct InvalidHpaKey;

impl FromStr for HpaKey {
    type Err = InvalidHpaKey;

    fn from_str(text: &str) -> Result<Self, InvalidHpaKey> {
        let (namespace, name) = split_namespaced(text).ok_or(InvalidHpaKey)?;
        Ok(Self::new(namespace, name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_what_it_prints_and_nothing_else() {
        let key = HpaKey::new("shop", "billing");
        assert_eq!(key.to_string(), "shop/billing");
        assert_eq!("shop/billing".parse(), Ok(key));
        for text in ["", "billing", "/billing", "shop/", "a/b/c", "/"] {
            assert_eq!(text.parse::<HpaKey>(), Err(InvalidHpaKey), "{text}");
        }
    }
}
