//! Who may ask: what the cluster says about the callers that its front proxy vouches for.

/// The front proxy's trust, as Kubernetes publishes it in the ConfigMap
/// `kube-system/extension-apiserver-authentication` (keys `requestheader-*`).
///
/// A caller whose client certificate chains to `client_ca_pem` and bears an allowed name speaks
/// for the user named in its headers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FrontProxyTrust {
    /// Certificates (PEM, concatenated) that sign the front proxy's client certificate.
    pub client_ca_pem: String,
    /// Common names that it may bear; empty = any.
    pub allowed_names: Vec<String>,
    /// Headers that hold the user's name; the first that is present counts.
    pub username_headers: Vec<String>,
    /// Headers that hold the user's groups, one per value.
    pub group_headers: Vec<String>,
}
