//! Identities of daemons in the Lease: the pod's name, and what distinguishes this run from earlier ones of the pod.

use crate::model::units::names;

/// A unique identity, different after every restart although a pod keeps its name. `started` is the time of the
/// start in nanoseconds since 1970.
#[must_use]
pub fn compose(pod: &str, process: u32, started: u128) -> String {
    format!("{pod}_{process}-{started:x}")
}

/// The pod in an identity; `None` if it is not the name of a pod, which becomes part of URLs.
#[must_use]
pub fn pod(identity: &str) -> Option<&str> {
    // The names of pods hold no underscore.
    let (pod, _) = identity.split_once('_')?;
    names::object(pod).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_the_pod() {
        let identity = compose("lagwise-5d9c7b-x2x8p", 1, 255);
        assert_eq!(identity, "lagwise-5d9c7b-x2x8p_1-ff");
        assert_eq!(pod(&identity), Some("lagwise-5d9c7b-x2x8p"));
        assert_eq!((pod(""), pod("somebody"), pod("_1")), (None, None, None));
    }

    #[test]
    fn holds_no_pod_that_would_change_a_url() {
        for named in [
            "a/exec?command=sh&x=",
            "../secrets",
            "a?b",
            "a#b",
            "a%2Fb",
            "A",
            ".",
        ] {
            assert_eq!(pod(&format!("{named}_1-ff")), None, "{named}");
        }
    }
}
