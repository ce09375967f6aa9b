//! Namespaces in which the administrator lets lagwise write.

use super::facts::{self, HpaFacts};
use crate::model::settings::cap_mode::CapMode;

/// The namespaces to which lagwise may write, for one kind of write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteScope {
    /// Whether lagwise may make such writes in any namespace.
    pub is_enabled: bool,
    /// The namespaces; empty = all.
    pub namespaces: Vec<String>,
}

impl WriteScope {
    /// All namespaces.
    pub const ALL: Self = Self {
        is_enabled: true,
        namespaces: Vec::new(),
    };

    /// Whether lagwise may write in this namespace.
    #[must_use]
    pub fn includes(&self, namespace: &str) -> bool {
        let is_listed = || self.namespaces.iter().any(|listed| listed == namespace);
        self.is_enabled && (self.namespaces.is_empty() || is_listed())
    }
}

impl Default for WriteScope {
    fn default() -> Self {
        Self::ALL
    }
}

/// Where lagwise may enforce the cap, and where it may scale to zero.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteScopes {
    pub cap: WriteScope,
    pub zero: WriteScope,
}

impl WriteScopes {
    /// All namespaces.
    pub const ALL: Self = Self {
        cap: WriteScope::ALL,
        zero: WriteScope::ALL,
    };

    /// The cap mode that applies to the HPA: `advise` where the cap may not be enforced. `default` applies to HPAs that
    /// set none.
    #[must_use]
    pub fn cap_mode(&self, hpa: &HpaFacts, default: CapMode) -> CapMode {
        self.cap_mode_override(hpa).unwrap_or(default)
    }

    /// The cap mode that replaces the default: `advise` where the cap may not be enforced, else
    /// [`annotated_cap_mode`](facts::annotated_cap_mode). `None` if the default applies.
    #[must_use]
    pub fn cap_mode_override(&self, hpa: &HpaFacts) -> Option<CapMode> {
        match self.cap.includes(&hpa.namespace) {
            true => facts::annotated_cap_mode(hpa),
            false => Some(CapMode::Advise),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scope_includes_listed_namespaces_or_all() {
        let scope = |is_enabled, namespaces: &[&str]| WriteScope {
            is_enabled,
            namespaces: namespaces.iter().map(|n| (*n).to_owned()).collect(),
        };
        for (scope, expected) in [
            (WriteScope::default(), true),
            (scope(true, &[]), true),
            (scope(true, &["pay", "shop"]), true),
            (scope(true, &["pay", "shop-2"]), false),
            (scope(true, &[""]), false),
            (scope(false, &[]), false),
            (scope(false, &["shop"]), false),
        ] {
            assert_eq!(scope.includes("shop"), expected, "{scope:?}");
        }
    }

    #[test]
    fn cap_is_advice_outside_of_the_scope() {
        let hpa = |mode: Option<&str>| HpaFacts {
            namespace: "shop".into(),
            annotations: mode
                .map(|mode| ("lagwise.dev/cap".to_owned(), mode.to_owned()))
                .into_iter()
                .collect(),
            ..HpaFacts::default()
        };
        let listed = |namespace: &str| WriteScopes {
            cap: WriteScope {
                namespaces: vec![namespace.into()],
                ..WriteScope::ALL
            },
            ..WriteScopes::ALL
        };
        use CapMode::{Advise, Enforce};
        for (mode, default, inside) in [
            (None, Advise, Advise),
            (None, Enforce, Enforce),
            (Some("enforce"), Advise, Enforce),
            (Some("advise"), Enforce, Advise),
        ] {
            let hpa = hpa(mode);
            assert_eq!(listed("shop").cap_mode(&hpa, default), inside, "{mode:?}");
            assert_eq!(listed("pay").cap_mode(&hpa, default), Advise, "{mode:?}");
        }
    }
}
