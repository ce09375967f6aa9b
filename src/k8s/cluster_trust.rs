//! The CAs and names of client certificates that the cluster trusts, from the ConfigMap in which the API
//! server publishes them.
//!
//! The role `extension-apiserver-authentication-reader` in `kube-system` grants get, list and
//! watch on this one object; list and watch hold because the field selector names it.

use std::collections::BTreeMap;
use std::mem;
use std::pin::pin;

use futures::stream::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client};
use tokio::sync::watch::Sender;

use super::resilient_watch;
use crate::authentication::access::{ClusterTrust, FrontProxyTrust};
use crate::telemetry::TrustUnusable;

const NAMESPACE: &str = "kube-system";
const NAME: &str = "extension-apiserver-authentication";

/// Watches the ConfigMap forever and publishes its content. The last usable content stays during an outage and while
/// the ConfigMap is missing or malformed.
pub async fn watch(client: Client, trust: Sender<Option<ClusterTrust>>) {
    let config = watcher::Config::default().fields(&format!("metadata.name={NAME}"));
    let api: Api<ConfigMap> = Api::namespaced(client, NAMESPACE);
    let mut events = pin!(resilient_watch::events(
        api,
        config,
        "ConfigMap kube-system/extension-apiserver-authentication",
    ));
    let mut listed = None;
    while let Some(event) = events.next().await {
        let found = match apply_event(event, &mut listed) {
            None => continue,
            Some(found) => found.ok_or(TrustProblem::Absent).and_then(|m| trust_of(&m)),
        };
        match found {
            Ok(found) => {
                trust.send_if_modified(|trust| {
                    let differs = trust.as_ref() != Some(&found);
                    if differs {
                        *trust = Some(found);
                    }
                    differs
                });
            }
            Err(problem) => TrustUnusable { reason: &problem }.emit(),
        }
    }
}

/// Applies an event of the watch. Returns the object, or `Some(None)` if it does not exist; `None` while a listing is
/// incomplete.
fn apply_event(
    event: Event<ConfigMap>,
    listed: &mut Option<ConfigMap>,
) -> Option<Option<ConfigMap>> {
    match event {
        Event::Init => {
            *listed = None;
            None
        }
        Event::InitApply(map) => {
            *listed = Some(map);
            None
        }
        Event::InitDone => Some(mem::take(listed)),
        Event::Apply(map) => Some(Some(map)),
        Event::Delete(_) => Some(None),
    }
}

/// Why the content of the ConfigMap cannot be used.
#[derive(Debug, thiserror::Error)]
enum TrustProblem {
    #[error("it does not exist")]
    Absent,
    #[error("it has neither {FRONT_PROXY_CA} nor {CLIENT_CA}: the API server runs without either")]
    NoCertificates,
    #[error("its {key} is not a JSON array of strings: {source}")]
    NoList {
        key: &'static str,
        source: serde_json::Error,
    },
}

const FRONT_PROXY_CA: &str = "requestheader-client-ca-file";
const CLIENT_CA: &str = "client-ca-file";

fn trust_of(map: &ConfigMap) -> Result<ClusterTrust, TrustProblem> {
    let empty = BTreeMap::new();
    let data = map.data.as_ref().unwrap_or(&empty);
    let list = |key: &'static str| match data.get(key).map(|text| text.trim()) {
        None | Some("") => Ok(Vec::new()),
        Some(text) => {
            serde_json::from_str(text).map_err(|source| TrustProblem::NoList { key, source })
        }
    };
    let pem = |key| data.get(key).filter(|pem| !pem.trim().is_empty()).cloned();
    let front_proxy = match pem(FRONT_PROXY_CA) {
        Some(client_ca_pem) => Some(FrontProxyTrust {
            client_ca_pem,
            allowed_names: list("requestheader-allowed-names")?,
            username_headers: list("requestheader-username-headers")?,
            uid_headers: list("requestheader-uid-headers")?,
            group_headers: list("requestheader-group-headers")?,
            extra_prefixes: list("requestheader-extra-headers-prefix")?,
        }),
        None => None,
    };
    let client_ca_pem = pem(CLIENT_CA);
    if front_proxy.is_none() && client_ca_pem.is_none() {
        return Err(TrustProblem::NoCertificates);
    }
    Ok(ClusterTrust {
        front_proxy,
        client_ca_pem,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(data: &[(&str, &str)]) -> ConfigMap {
        let data = data.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        ConfigMap {
            data: Some(data.collect()),
            ..ConfigMap::default()
        }
    }

    const CA: (&str, &str) = ("requestheader-client-ca-file", "PEM");

    #[test]
    fn reads_quantities_written_by_the_api_server() {
        let found = trust_of(&map(&[
            CA,
            ("client-ca-file", "USERS"),
            ("requestheader-allowed-names", r#"["front-proxy-client"]"#),
            ("requestheader-uid-headers", r#"["X-Remote-Uid"]"#),
            ("requestheader-username-headers", r#"["X-Remote-User"]"#),
            (
                "requestheader-group-headers",
                r#"["X-Remote-Group","X-Other"]"#,
            ),
            (
                "requestheader-extra-headers-prefix",
                r#"["X-Remote-Extra-"]"#,
            ),
        ]));
        let front_proxy = FrontProxyTrust {
            client_ca_pem: "PEM".to_owned(),
            allowed_names: vec!["front-proxy-client".to_owned()],
            username_headers: vec!["X-Remote-User".to_owned()],
            uid_headers: vec!["X-Remote-Uid".to_owned()],
            group_headers: vec!["X-Remote-Group".to_owned(), "X-Other".to_owned()],
            extra_prefixes: vec!["X-Remote-Extra-".to_owned()],
        };
        let expected = ClusterTrust {
            front_proxy: Some(front_proxy),
            client_ca_pem: Some("USERS".to_owned()),
        };
        assert_eq!(found.unwrap(), expected);
    }

    #[test]
    fn missing_configuration_is_an_error_that_names_it() {
        let error = |data: &[(&str, &str)]| trust_of(&map(data)).unwrap_err().to_string();
        assert!(error(&[]).contains("neither requestheader-client-ca-file nor client-ca-file"));
        assert!(error(&[("requestheader-client-ca-file", " ")]).contains("it has neither"));
        let spoilt = error(&[CA, ("requestheader-allowed-names", "x")]);
        assert!(
            spoilt.contains("its requestheader-allowed-names is not a JSON array"),
            "{spoilt}"
        );
        assert!(trust_of(&ConfigMap::default()).is_err());
    }

    #[test]
    fn one_certificate_authority_is_enough() {
        let proxy = trust_of(&map(&[CA])).unwrap();
        assert!(proxy.client_ca_pem.is_none());
        assert!(proxy.front_proxy.unwrap().allowed_names.is_empty());
        let users = trust_of(&map(&[("client-ca-file", "USERS")])).unwrap();
        assert!(users.front_proxy.is_none());
        assert_eq!(users.client_ca_pem.as_deref(), Some("USERS"));
    }

    #[test]
    fn uses_a_listing_once_it_is_complete() {
        let mut listed = None;
        let mut step = |event| apply_event(event, &mut listed);
        assert_eq!(step(Event::Init), None);
        assert_eq!(step(Event::InitDone), Some(None));
        assert_eq!(step(Event::Init), None);
        assert_eq!(step(Event::InitApply(map(&[CA]))), None);
        assert_eq!(step(Event::InitDone), Some(Some(map(&[CA]))));
        assert_eq!(step(Event::Delete(map(&[CA]))), Some(None));
        assert_eq!(step(Event::Apply(map(&[]))), Some(Some(map(&[]))));
    }
}
